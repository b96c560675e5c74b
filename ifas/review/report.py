"""A run's report, `report.html`: what the review page shows of a model, as one file without scripts that loads nothing.

It is for who has no ledger, so it holds no decision. Every figure comes from the metrics tree. Text from outside
(explanations, domain names, facts) is escaped by the template engine.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.config import EvaluateConfig
from ifas.core.errors import ImageRefused
from ifas.core.files import replacing, sha256_json
from ifas.core.manifest import ImageSource
from ifas.core.records import Lineage
from ifas.evaluation import gallery
from ifas.review import charts, cost, figures, measured, pictures
from ifas.review.pictures import Card
from ifas.review.rendering import style, templates

if TYPE_CHECKING:
    import pandas as pd

THUMBNAIL = 200
#: Bytes of images on the page; with curves and tables it stays below 4 MB.
PICTURE_BUDGET = 3_000_000
LONGEST_FACT = 1_500
#: Columns of the predictions that curves are drawn from.
CHARTED = ("domain", "label", "pai_species", "score")


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
    one = measured.Evaluated(metrics, predictions)
    champion = figures.champion_of(metrics)
    sides = {"target": one.series("target"), "source, test": one.series("source")}
    series = {name: side for name, side in sides.items() if side is not None}
    groups, words, how_many = _chosen(one, config.gallery)
    shown = [card for cards in (*groups.values(), words[0]) for card in cards]
    pictured = _pictured(shown, images, manifest)
    draw = charts.kept(_evidence(one))
    page = (
        templates()
        .get_template("report.jinja")
        .render(
            **measured.of(metrics, champion, measured.drawings(draw, metrics, champion, series)),
            swept=measured.swept(draw, one),
            exposed=measured.exposed(metrics, lineage_facts.get("validate")),
            groups=groups,
            how_many=how_many,
            words=words,
            src_of=lambda sample: pictured.get(sample, ""),
            left_out=len(shown) - len(pictured),
            headings=gallery.GROUPS,
            away={},
            style=style(),
            run_id=run_id,
            model_version=model_version,
            config=config,
            facts={key: _plain(value) for key, value in lineage_facts.items()},
            synthetic=bool(metrics["data"]["synthetic"]) or bool(manifest["synthetic"].any()),
        )
    )
    with replacing(out) as beside:
        beside.write_text(page, encoding="utf-8")


def with_costs(page: str, lineage: Lineage) -> str:
    """A report with what its run used, where any step has told. The page itself may be an earlier run's."""
    if not any(entry.usage for entry in lineage.entries):
        return page
    before, end, after = page.rpartition("</main>")
    table = templates().get_template("cost.jinja").render(cost=cost.of(lineage))
    return f"{before}{table}{end}{after}"


def _evidence(one: measured.Evaluated) -> str:
    """What the charts rest on, as a hash."""
    import pandas as pd

    rows = b"" if one.rows is None else pd.util.hash_pandas_object(one.rows[list(CHARTED)]).to_numpy().tobytes()
    return sha256_json([one.metrics, sha256(rows).hexdigest()])


def _chosen(one: measured.Evaluated, size: int) -> tuple[dict[str, list[Card]], tuple[list[Card], int], dict[str, int]]:
    """At most `size` cards: by group, and of right verdicts with wrong words; how many images each group has."""
    if one.rows is None or one.threshold is None:
        return {name: [] for name in gallery.GROUPS}, ([], 0), dict.fromkeys(gallery.GROUPS, 0)
    wrong, n_wrong = pictures.wrong_words(one.rows, one.threshold)
    wrong = wrong[: size // 4]
    groups = pictures.chosen(one.rows, one.threshold, size - len(wrong))
    there = {card.id for card in wrong}
    groups = {name: [card for card in cards if card.id not in there] for name, cards in groups.items()}
    return groups, (wrong, n_wrong), pictures.how_many(one.rows, one.threshold)


def _pictured(cards: list[Card], images: ImageSource, manifest: pd.DataFrame) -> dict[str, str]:
    """Small pictures as `data:` URIs, by sample; without those that can't be decoded or do not fit on the page."""
    places = manifest.drop_duplicates("sample_id").set_index("sample_id")
    found: dict[str, str] = {}
    spent = 0
    for card in cards:
        place = places.loc[card.id]
        try:
            picture = thumbnail(images.read(str(place["shard"]), int(place["row"])))
        except ImageRefused:
            continue
        if spent + len(picture) <= PICTURE_BUDGET:
            spent += len(picture)
            found[card.id] = picture
    return found


def thumbnail(data: bytes) -> str:
    """A `data:` URI with a JPEG of at most 200 pixels a side. Raises ImageRefused."""
    return "data:image/jpeg;base64," + base64.b64encode(pictures.small(data, THUMBNAIL)).decode()


def _plain(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= LONGEST_FACT else f"{text[:LONGEST_FACT]} … (the rest is in lineage.json)"
