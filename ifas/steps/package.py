"""package: approved candidate -> Bento with model card. A candidate in any other state is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifas.core.config import RunConfig
from ifas.core.files import read_json, sha256_json
from ifas.core.records import METRICS_FILE, Lineage, StepResult
from ifas.steps.approve import record_of
from ifas.steps.code import files_in
from ifas.steps.contract import Context
from ifas.steps.gate import evidence_of, open_ledger


def identity(_config: RunConfig) -> dict[str, Any]:
    """The code that goes into the Bento, whether this step imports it or not."""
    from ifas.serving.stage import ROOMS

    return {"code in the Bento": sha256_json([files_in(room) for room in ROOMS])}


def permit(config: RunConfig, inputs: Mapping[str, Path], lineage: Lineage) -> None:
    """Asks the ledger whether these very things were approved. The approval's file only names the candidate.

    Raises:
        NotApproved: the candidate is in any other state than approved.
        GateError: the ledger knows no such candidate, or it was approved with something else.
        DataError: the ledger was altered, or a record is damaged.
    """
    from ifas.promotion.approval import require_approved

    require_approved(open_ledger(config), _candidate(inputs), evidence_of(inputs, lineage))


def run(config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context) -> StepResult:
    """Builds the Bento of what `permit` has let through."""
    from ifas.promotion.approval import approval_of
    from ifas.serving.package import build_bento

    record = build_bento(
        inputs["model"],
        approval_of(open_ledger(config), _candidate(inputs)).model_dump(),
        read_json(inputs["evaluation"] / METRICS_FILE),
        context.lineage,
        name=config.package.name,
        limits=config.package.limits,
        traffic=config.package.traffic,
        publish_card=config.package.publish_card,
        out=outputs["bento"],
    )
    return StepResult(summary=record.summary, facts=record.facts)


def _candidate(inputs: Mapping[str, Path]) -> str:
    return str(record_of(inputs["approval"], "approval", ("candidate",))["candidate"])
