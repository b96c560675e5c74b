"""The page from which a reviewer decides: `report.html`, one file without scripts that loads nothing from elsewhere.

Every figure comes from the metrics tree; the page computes none of its own. Text from outside (explanations, domain
names, facts) is escaped by the template engine.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.config import EvaluateConfig
from ifas.core.errors import ImageRefused
from ifas.core.files import replacing
from ifas.core.imaging import decode
from ifas.core.manifest import ImageSource
from ifas.core.measures import FIXED_SLICES, MEASURES, SLICE_KINDS
from ifas.core.release_status import released
from ifas.core.taxonomy import SPOOF_TYPES
from ifas.evaluation import gallery
from ifas.evaluation.exposure import exposure_against_error
from ifas.evaluation.plots import Series, det_svg, histogram_svg, roc_svg

if TYPE_CHECKING:
    import pandas as pd

TEMPLATE = "report.html.jinja"
THUMBNAIL = 200
#: Bytes of images on the page; with curves and tables it stays below 4 MB.
PICTURE_BUDGET = 3_000_000
LONGEST_FACT = 1_500


@dataclass(frozen=True)
class Card:
    """One image of the gallery."""

    sample_id: str
    picture: str
    alt: str
    truth: str
    domain: str
    score: float
    accepted: bool
    right: bool
    named: str
    explanation: str | None


def render_report(
    metrics: Mapping[str, Any],
    predictions: pd.DataFrame,
    images: ImageSource,
    manifest: pd.DataFrame,
    *,
    run_id: str,
    model_version: str,
    lineage_facts: Mapping[str, Any],
    config: EvaluateConfig,
    out: Path,
) -> None:
    """Writes the report to `out`, atomically.

    Args:
        metrics: what `evaluate` returned for `predictions`.
        predictions: the table that `predict` returned.
        images: where the gallery's images are read from.
        manifest: shard and row of each sample, and whether the data are synthetic.
        lineage_facts: how the model came about, shown as a table; nested values are shown as JSON.
    """
    import jinja2
    from markupsafe import Markup

    threshold = float(metrics["threshold"]["value"])
    predictions = released(predictions)
    curves, histograms = _plots(predictions, metrics, threshold)
    groups, left_out = _cards(metrics, predictions, images, manifest, threshold, config.gallery)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters.update(percent=percent, interval=interval)
    source = resources.files("ifas.evaluation").joinpath(TEMPLATE).read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        m=metrics,
        slices=metrics["slices"],
        exposed=_exposed(metrics, lineage_facts),
        measures=MEASURES,
        fixed=FIXED_SLICES,
        kinds=SLICE_KINDS,
        spoof_types=SPOOF_TYPES,
        run_id=run_id,
        model_version=model_version,
        config=config,
        facts={key: _plain(value) for key, value in lineage_facts.items()},
        synthetic=bool(metrics["data"]["synthetic"]) or bool(manifest["synthetic"].any()),
        # Our own SVG; the texts in it are escaped where it is drawn.
        plots=[Markup(svg) for svg in curves],  # noqa: S704
        histograms=[(name, Markup(svg)) for name, svg in histograms],  # noqa: S704
        headings=gallery.GROUPS,
        groups=groups,
        left_out=left_out,
    )
    with replacing(out) as beside:
        beside.write_text(page, encoding="utf-8")


def _exposed(metrics: Mapping[str, Any], lineage_facts: Mapping[str, Any]) -> dict[str, Any]:
    """Exposure against error on the target; no rows where validation left no counts."""
    validation = lineage_facts.get("validate")
    counts = validation.get("exposure", {}).get("species") if isinstance(validation, Mapping) else None
    if not counts:
        return {"rows": [], "spearman": None}
    return exposure_against_error(counts, metrics["slices"]["target"]["apcer"])


def percent(value: float | None) -> str:
    """A share as the page shows it."""
    return "not measured" if value is None else f"{100 * value:.1f} %"


def interval(entry: Mapping[str, Any], scale: float = 100) -> str:
    """The 95 % interval of an entry as the page shows it; empty where there is none."""
    pair = entry.get("interval")
    if not pair:
        return ""
    low, high = (f"{scale * v:.1f}" if scale == 100 else f"{scale * v:.3f}" for v in pair)
    return f"{low} to {high}"


def _plain(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= LONGEST_FACT else f"{text[:LONGEST_FACT]} … (the rest is in lineage.json)"


def _plots(
    predictions: pd.DataFrame, metrics: Mapping[str, Any], threshold: float
) -> tuple[list[str], list[tuple[str, str]]]:
    """ROC and DET curve, and a named histogram of each slice; none where a slice lacks bona fide or attacks."""
    series = []
    test = predictions[(predictions["split"] == "test") & predictions["score"].notna()]
    for name, side in (("source_test", "source_domains"), ("target", "target_domains")):
        entry = metrics["slices"][name]
        if entry["n_live"] and entry["n_spoof"]:
            rows = test[test["domain"].isin(metrics["protocol"][side])]
            live = (rows["label"] == "live").to_numpy(dtype=bool)
            title = "source, test split" if name == "source_test" else "target"
            series.append(Series(title, rows["score"].to_numpy(dtype="float64"), live))
    if not series:
        return [], []
    histograms = [(one.name, histogram_svg(f"hist{i}", one, threshold)) for i, one in enumerate(series)]
    return [roc_svg(series, threshold), det_svg(series, threshold)], histograms


def _cards(
    metrics: Mapping[str, Any],
    predictions: pd.DataFrame,
    images: ImageSource,
    manifest: pd.DataFrame,
    threshold: float,
    size: int,
) -> tuple[dict[str, list[Card]], int]:
    """Cards by group, and how many images did not fit on the page."""
    domains = [*metrics["protocol"]["source_domains"], *metrics["protocol"]["target_domains"]]
    rows = predictions[(predictions["split"] == "test") & predictions["domain"].isin(domains)]
    chosen = gallery.choose(rows, threshold, size)
    places = manifest.drop_duplicates("sample_id").set_index("sample_id")
    cards: dict[str, list[Card]] = {}
    spent = left_out = 0
    for group, labels in chosen.items():
        cards[group] = []
        for label in labels:
            row = rows.loc[label]
            place = places.loc[row["sample_id"]]
            try:
                jpeg = thumbnail(images.read(str(place["shard"]), int(place["row"])))
            except ImageRefused:
                left_out += 1
                continue
            if spent + len(jpeg) > PICTURE_BUDGET:
                left_out += 1
                continue
            spent += len(jpeg)
            cards[group].append(_card(row, jpeg, threshold))
    return cards, left_out


def _card(row: pd.Series, jpeg: str, threshold: float) -> Card:
    live, accepted = row["label"] == "live", bool(row["score"] >= threshold)
    truth = "bona fide" if live else f"attack: {row['pai_species']}"
    text = row["explanation"]
    return Card(
        sample_id=str(row["sample_id"])[:12],
        picture=jpeg,
        alt=f"Test image, {truth}, domain {row['domain']}",
        truth=truth,
        domain=str(row["domain"]),
        score=float(row["score"]),
        accepted=accepted,
        right=accepted == live,
        named=_named(row),
        explanation=text if isinstance(text, str) else None,
    )


def _named(row: pd.Series) -> str:
    """The attack that the answer names, with its confidence; empty where it names none."""
    sure = row["spoof_type_confidence"]
    return "" if sure is None or sure != sure else f"{row['spoof_type_named']} ({sure:.2f})"


def thumbnail(data: bytes) -> str:
    """A `data:` URI with a JPEG of at most 200 pixels a side. Raises ImageRefused."""
    from PIL import Image

    image = Image.fromarray(decode(data))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
