"""`results.json` for machines and `report.html` for people: one file, no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.config import ValidateConfig
from ifas.core.files import replacing, write_json
from ifas.core.manifest import ImageSource
from ifas.core.records import REPORT_FILE
from ifas.core.taxonomy import SPLITS, SPOOF_TYPES
from ifas.validation.findings import Finding, ValidationReport
from ifas.validation.pictures import Picture, thumbnails
from ifas.validation.section import Section, Shown

if TYPE_CHECKING:
    import pandas as pd

TEMPLATE = "report.html.jinja"
RESULTS_FILE = "results.json"
#: Images of a failed rule that are shown.
PICTURED = 4


def write_report(
    findings: Sequence[Finding],
    report: ValidationReport,
    manifest: pd.DataFrame,
    config: ValidateConfig,
    source_domains: Sequence[str],
    out: Path,
    *,
    sections: Sequence[Section] = (),
    images: ImageSource | None = None,
) -> None:
    """Writes both files into `out`, each atomically. The same input gives the same bytes."""
    contents = content_table(manifest)
    results = {
        "passed": report.passed,
        "summary": report.summary,
        "blocking_failures": list(report.blocking_failures),
        "images": len(manifest),
        "source_domains": list(source_domains),
        "config": config.model_dump(mode="json"),
        "rules": [_entry(one) for one in findings],
        "contents": contents,
        "sections": [_section(one) for one in sections],
    }
    write_json(out / RESULTS_FILE, results)
    asked = [shown for one in sections for shown in one.pictures] + _failing(findings)
    pictures = thumbnails([shown.id for shown in asked], manifest, images) if images is not None else {}
    page = _render(findings, report, manifest, contents, source_domains, sections, pictures)
    with replacing(out / REPORT_FILE) as beside:
        beside.write_text(page, encoding="utf-8")


def content_table(manifest: pd.DataFrame) -> list[dict[str, Any]]:
    """Images by domain and split, one entry per pair that occurs: counts of each class. Empty without the columns."""
    wanted = ["domain", "split", "spoof_type"]
    if not set(wanted) <= set(manifest.columns):
        return []
    count = manifest.groupby([manifest[name].astype(str) for name in wanted]).size().to_dict()
    order = {name: i for i, name in enumerate(SPLITS)}
    pairs = sorted({key[:2] for key in count}, key=lambda pair: (pair[0], order.get(pair[1], len(order)), pair[1]))
    kinds = [*SPOOF_TYPES, *sorted({key[2] for key in count} - set(SPOOF_TYPES))]
    return [
        {
            "domain": domain,
            "split": split,
            "images": sum(int(n) for key, n in count.items() if key[:2] == (domain, split)),
            "classes": {kind: int(count[domain, split, kind]) for kind in kinds if (domain, split, kind) in count},
        }
        for domain, split in pairs
    ]


def _section(one: Section) -> dict[str, Any]:
    return {"id": one.id, "flags": list(one.flags), "blocking": list(one.blocking), **one.facts}


def _failing(findings: Sequence[Finding]) -> list[Shown]:
    """A few images of each rule that failed."""
    failed = [one for one in findings if one.status == "failed" and "images" in one.rule.table]
    return [
        Shown(id=case.id, value=f"{case.value} ({case.where})") for one in failed for case in one.examples[:PICTURED]
    ]


def _entry(one: Finding) -> dict[str, Any]:
    return {
        "id": one.rule.id,
        "title": one.rule.title,
        "severity": one.rule.severity,
        "demoted": one.rule.demoted,
        "status": one.status,
        "observed": one.observed,
        "expected": one.rule.expected,
        "examples": [{"id": case.id, "value": case.value, "where": case.where} for case in one.examples],
    }


def _render(
    findings: Sequence[Finding],
    report: ValidationReport,
    manifest: pd.DataFrame,
    contents: list[dict[str, Any]],
    source_domains: Sequence[str],
    sections: Sequence[Section],
    pictures: Mapping[str, Picture],
) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    source = resources.files("ifas.validation").joinpath(TEMPLATE).read_text(encoding="utf-8")
    kinds = {kind for row in contents for kind in row["classes"]}
    return environment.from_string(source).render(
        report=report,
        images=len(manifest),
        stopping=[one for one in findings if one.blocks and one.status != "not checked"],
        unchecked=[one for one in findings if one.status == "not checked"],
        notes=[one for one in findings if one.rule.severity == "advisory" and one.status in ("failed", "broken")],
        kept=[one for one in findings if one.status == "passed"],
        contents=contents,
        kinds=[kind for kind in SPOOF_TYPES if kind in kinds] + sorted(kinds - set(SPOOF_TYPES)),
        source_domains=list(source_domains),
        sections=sections,
        pictures=pictures,
        pictured=PICTURED,
    )
