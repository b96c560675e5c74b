"""package: approved candidate -> Bento with model card. A candidate in any other state is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifas.core.config import RunConfig
from ifas.core.files import read_json, sha256_json
from ifas.core.records import METRICS_FILE, StepResult
from ifas.steps.approve import record_of
from ifas.steps.code import files_in
from ifas.steps.contract import Context


def identity(_config: RunConfig) -> dict[str, Any]:
    """The code that goes into the Bento, whether this step imports it or not."""
    from ifas.serving.stage import ROOMS

    return {"code in the Bento": sha256_json([files_in(room) for room in ROOMS])}


def run(config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context) -> StepResult:
    """Builds the Bento; raises NotApproved for a candidate in any state but approved."""
    from ifas.serving.package import build_bento

    record = build_bento(
        inputs["model"],
        record_of(inputs["approval"], "approval", ("candidate", "state")),
        read_json(inputs["evaluation"] / METRICS_FILE),
        context.lineage,
        name=config.package.name,
        limits=config.package.limits,
        traffic=config.package.traffic,
        publish_card=config.package.publish_card,
        out=outputs["bento"],
    )
    return StepResult(summary=record.summary, facts=record.facts)
