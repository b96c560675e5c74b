"""The model card. Every figure in it is read from a record of the run; without that record no card is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ifas.core.errors import DataError
from ifas.core.files import read_json
from ifas.core.measures import MEASURES
from ifas.core.records import Lineage, LineageEntry
from ifas.model.processor import PROCESSOR_FILE
from ifas.serving.settings import ServingSettings

CARD_FILE = "MODEL_CARD.md"
TEMPLATE = "card.md.jinja"

#: Steps whose entries in the lineage the card is written from.
STEPS = ("ingest", "caption", "validate", "train", "evaluate")
#: Figures of the main tables, in this order; the report has all of them.
SHOWN = (
    *("hter", "auc", "eer", "apcer_max", "apcer_pooled", "bpcer"),
    *("explanation_agreement", "explanation_medium", "explanation_medium_least"),
)
#: Of these the front matter lists the values on the target domains.
INDEXED = ("hter", "auc", "apcer_max", "bpcer")
#: A fact longer than this is for the lineage, not for the card.
_LONGEST = 240


def render_card(
    model: Path,
    settings: ServingSettings,
    approval: Mapping[str, Any],
    metrics: Mapping[str, Any],
    lineage: Lineage,
    *,
    name: str,
) -> str:
    """The card in Markdown, with front matter as model hubs read it.

    Raises:
        DataError: records are missing; the error names all of them.
    """
    import jinja2
    import yaml

    missing = _missing(metrics, lineage)
    if missing:
        raise DataError(
            f"the model card can't be written: no record of {', '.join(missing)}",
            "run the pipeline from the start, so that every step writes its record",
        )
    entries = {step: _entry(lineage, step) for step in STEPS}
    ingest = entries["ingest"].facts
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Markdown, not HTML; cell() escapes what could break out of a table
    )
    environment.filters.update(figure=figure, cell=cell)
    source = resources.files("ifas.serving").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(
        front=yaml.safe_dump(
            _front_matter(name, metrics, ingest), sort_keys=False, allow_unicode=True, width=1000
        ).rstrip(),
        name=name,
        run_id=lineage.run_id,
        licences=ingest["index"]["licences"],
        settings=settings,
        approval=approval,
        m=metrics,
        measures=MEASURES,
        shown=SHOWN,
        synthetic=bool(metrics["data"]["synthetic"]),
        architecture=_architecture(model),
        entries=entries,
        gate=lineage.of("gate"),
        ingest=_table(ingest, skip=("index",)),
        index=_table(ingest["index"], skip=("licences",)),
        captions=_table(entries["caption"].facts, skip=("losses", "loss")),
        training=_table(entries["train"].facts),
        lineage=lineage.entries,
        gaps=_gaps(metrics),
    )


def figure(entry: Mapping[str, Any]) -> str:
    """An entry of metrics.json as text: value, 95 % interval, n; or why it was not measured."""
    if entry.get("value") is None:
        return f"not measured: {entry.get('reason', 'no reason given')}"
    text = f"{entry['value']:.3f}"
    if entry.get("interval"):
        text += f" ({entry['interval'][0]:.3f} to {entry['interval'][1]:.3f})"
    return f"{text}, n = {entry['n']}"


def cell(value: object) -> str:
    """Text that stays within a cell of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _missing(metrics: Mapping[str, Any], lineage: Lineage) -> list[str]:
    missing = [f"step {step}" for step in STEPS if lineage.of(step) is None]
    missing += [
        f"metrics.{key}" for key in ("threshold", "protocol", "data", "slices", "intervals") if key not in metrics
    ]
    for part in ("source_test", "target"):
        found = metrics.get("slices", {}).get(part, {})
        missing += [f"metrics.slices.{part}.{key}" for key in (*SHOWN, "apcer") if key not in found]
    if "value" not in metrics.get("threshold", {}):
        missing.append("metrics.threshold.value")
    if "synthetic" not in metrics.get("data", {}):
        missing.append("metrics.data.synthetic")
    ingest = lineage.of("ingest")
    if ingest is not None:
        wanted = ("dataset", "revision", "dataset_sha256", "rows", "index")
        missing += [f"ingest.{key}" for key in wanted if key not in ingest.facts]
        if "licences" not in ingest.facts.get("index", {}):
            missing.append("ingest.index.licences")
    return missing


def _entry(lineage: Lineage, step: str) -> LineageEntry:
    entry = lineage.of(step)
    if entry is None:
        raise DataError(f"lineage of run {lineage.run_id} has no step {step}", "run the pipeline from the start")
    return entry


def _front_matter(name: str, metrics: Mapping[str, Any], ingest: Mapping[str, Any]) -> dict[str, Any]:
    target = metrics["slices"]["target"]
    results = [
        {"type": key, "name": MEASURES[key].title, "value": round(float(target[key]["value"]), 4)}
        for key in INDEXED
        if target[key]["value"] is not None
    ]
    dataset = {
        "type": ingest["dataset"],
        "name": f"{ingest['dataset']}, target domains",
        "revision": ingest["revision"],
    }
    return {
        "license": "other",
        "license_name": "see-licences",
        "license_link": f"{CARD_FILE}#licences",
        "pipeline_tag": "image-text-to-text",
        "tags": ["face-anti-spoofing", "presentation-attack-detection", "arxiv:2501.01720"]
        + (["synthetic-data"] if metrics["data"]["synthetic"] else []),
        "datasets": [ingest["dataset"]],
        "metrics": list(INDEXED),
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "face anti-spoofing"},
                        "dataset": dataset,
                        "metrics": results,
                    }
                ],
            }
        ],
    }


def _architecture(model: Path) -> list[tuple[str, str]]:
    """What the model directory says of the model's shape."""
    config, processor = read_json(model / "config.json"), read_json(model / PROCESSOR_FILE)
    text = config.get("text_config") or {}
    rows = {
        "vision tower": config.get("vision_kind"),
        "input": f"{processor['image_size']} x {processor['image_size']} pixels, whole image",
        "image tokens": processor["image_tokens"],
        "language model": text.get("model_type"),
        "language layers": text.get("num_hidden_layers"),
        "language width": text.get("hidden_size"),
        **{f"connector {key}": value for key, value in (config.get("connector") or {}).items()},
        "question": processor["question"],
        "longest answer": f"{processor['max_answer_tokens']} tokens",
        "weights": config.get("dtype"),
    }
    return [(key, cell(value)) for key, value in rows.items() if value is not None]


def _table(facts: Mapping[str, Any], skip: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Facts as rows: values that are short as JSON, and those one level down in mappings."""
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        if key in skip:
            continue
        if isinstance(value, Mapping):
            rows += [(f"{key} {inner}", _short(v)) for inner, v in value.items()]
        else:
            rows.append((key, _short(value)))
    return [(cell(key).replace("_", " "), text) for key, text in rows if text]


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return cell(text) if len(text) <= _LONGEST else ""


def _gaps(metrics: Mapping[str, Any]) -> list[str]:
    """Figures of the two main slices that could not be measured, and why."""
    return [
        f"{MEASURES[key].title} on {part.replace('_', ' ')}: {entry.get('reason', 'no reason given')}"
        for part in ("source_test", "target")
        for key, entry in metrics["slices"][part].items()
        if key in MEASURES and entry.get("value") is None
    ]
