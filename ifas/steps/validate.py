"""validate: captioned manifest -> pass or fail per rule, audits, sampling weights, and a readable report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ifas.core.config import RunConfig
from ifas.core.errors import ValidationFailed
from ifas.core.files import read_json
from ifas.core.manifest import DATASET_FILE, MANIFEST_FILE, PREVIOUS_MANIFEST_FILE
from ifas.core.records import StepResult
from ifas.steps.contract import Context


def run(config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context) -> StepResult:
    """Checks every rule; the report is written in any case.

    Raises:
        ValidationFailed: a blocking rule is not kept, or an audit blocks.
    """
    import pandas as pd

    from ifas.data.shards import ShardImages
    from ifas.validation import looks
    from ifas.validation.suite import validate

    out, dataset = outputs["validation"], inputs["dataset"]
    # Not read_manifest: a missing column is a finding to report here, with all the others.
    manifest = pd.read_parquet(inputs["captions"] / MANIFEST_FILE)
    previous = dataset / PREVIOUS_MANIFEST_FILE
    before = pd.read_parquet(previous) if previous.is_file() else None
    images = ShardImages(dataset)
    domains = config.protocol.source_domains
    sections = looks.of_columns(manifest, domains, read_json(dataset / DATASET_FILE), before)
    if sections:
        seen, weights = looks.of_pictures(manifest, domains, images, config.model.vision)
        sections += seen
        out.mkdir(parents=True, exist_ok=True)
        weights.to_parquet(out / looks.WEIGHTS_FILE, index=False)
    report = validate(
        manifest,
        config.validation,
        out=out,
        source_domains=domains,
        sections=sections,
        images=images,
    )
    if not report.passed:
        failed = "; ".join(report.blocking_failures)
        raise ValidationFailed(f"blocking data rules failed: {failed}", f"read {out / 'report.html'} and mend the data")
    return StepResult(summary=report.summary, facts=report.facts)
