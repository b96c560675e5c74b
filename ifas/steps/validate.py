"""validate: captioned manifest -> pass or fail per rule, and a readable report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ifas.core.config import RunConfig
from ifas.core.errors import ValidationFailed
from ifas.core.records import StepResult
from ifas.steps.contract import Context


def run(config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context) -> StepResult:
    """Checks every rule; the report is written in any case. Raises ValidationFailed when a blocking rule failed."""
    import pandas as pd

    from ifas.core.manifest import MANIFEST_FILE
    from ifas.validation.suite import validate

    out = outputs["validation"]
    # Not read_manifest: a missing column is a finding to report here, with all the others.
    report = validate(
        pd.read_parquet(inputs["captions"] / MANIFEST_FILE),
        config.validation,
        out=out,
        source_domains=config.protocol.source_domains,
    )
    if not report.passed:
        failed = "; ".join(report.blocking_failures)
        raise ValidationFailed(f"blocking data rules failed: {failed}", f"read {out / 'report.html'} and mend the data")
    return StepResult(summary=report.summary, facts=report.facts)
