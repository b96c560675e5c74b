"""validate: captioned manifest and images -> pass or fail per rule, audits, sampling weights, a readable report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifas.core.config import RunConfig
from ifas.core.errors import ValidationFailed
from ifas.core.files import link_tree, read_json
from ifas.core.manifest import DATASET_FILE, PREVIOUS_MANIFEST_FILE, read_manifest
from ifas.core.outputs import producing, require_ours
from ifas.core.records import UNREADABLE_FILE, WEIGHTS_FILE, StepResult
from ifas.steps.contract import Context


def identity(config: RunConfig, _inputs: Mapping[str, str]) -> dict[str, Any]:
    """The weights of the tower whose features the domain probe uses."""
    from ifas.model.sources import weights_of

    return {"base weights of model.vision": weights_of(config.model.vision.source)}


def run(config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context) -> StepResult:
    """Checks every rule; if a blocking one is broken, the report goes to `context.failed`.

    Raises:
        ValidationFailed: a blocking rule is broken, or an audit blocks.
        DataError: a manifest or shard is damaged, or `context.failed` holds something that ifas did not make.
    """
    require_ours(context.failed)
    from ifas.core.picture_inspection import inspect_rows
    from ifas.data.shards import ShardImages
    from ifas.validation import audits, unreadable
    from ifas.validation.suite import validate

    out, dataset = outputs["validation"], inputs["dataset"]
    previous = dataset / PREVIOUS_MANIFEST_FILE
    before = read_manifest(previous, incomplete=True) if previous.is_file() else None
    images = ShardImages(dataset)
    domains = config.protocol.source_domains
    packed = read_manifest(dataset)
    looked = inspect_rows(packed, images, workers=config.validation.workers, step="validate")
    bad = unreadable.unreadable(packed, looked)
    out.mkdir(parents=True, exist_ok=True)
    bad.to_parquet(out / UNREADABLE_FILE, index=False)
    # A missing column is a finding to report here, with all the others.
    manifest = unreadable.with_hashes(read_manifest(inputs["captions"], incomplete=True), looked)
    sections = audits.audit_columns(manifest, domains, read_json(dataset / DATASET_FILE), before)
    if sections:
        seen, weights = audits.audit_pictures(manifest, domains, images, config.model.vision)
        sections += seen
        weights.to_parquet(out / WEIGHTS_FILE, index=False)
    sections.insert(0, unreadable.section(bad, len(packed), config.validation.max_unreadable))
    report = validate(
        manifest,
        config.validation,
        out=out,
        source_domains=domains,
        sections=sections,
        images=images,
    )
    if not report.passed:
        with producing(context.failed) as kept:
            link_tree(out, kept)
        failed = "\n  - ".join(["blocking data rules failed:", *report.blocking_failures])
        raise ValidationFailed(failed, f"read {context.failed / 'report.html'} and correct the data")
    return StepResult(summary=report.summary, facts=report.facts)
