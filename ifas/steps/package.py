"""package: approved candidate -> Bento with model card. A candidate in any other state is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ifas.core.config import RunConfig
from ifas.core.errors import GateError
from ifas.core.files import read_json, write_json
from ifas.core.records import METRICS_FILE, StepResult
from ifas.steps.approve import record_of
from ifas.steps.contract import Context
from ifas.steps.gate import evidence_of
from ifas.steps.ledger import open_ledger

#: What holds the key that signs packages where a run's configuration says `env:IFAS_PACKAGE_KEY`; a cluster gives it to
#: this step only.
KEY_ENV = "IFAS_PACKAGE_KEY"


def run(config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context) -> StepResult:
    """Asks the ledger whether these very things were approved, and builds their Bento.

    The approval's file only names the candidate.

    Raises:
        NotApproved: the candidate is in any other state than approved.
        GateError: the ledger knows no such candidate, or it was approved with something else, or for another product.
        DataError: the ledger was altered, or a record is damaged.
        ConfigError: there is no key to sign with.
    """
    from ifas.promotion.approval import require_approved
    from ifas.promotion.statements import ATTESTATION_FILE, PACKAGE, signed, signer
    from ifas.serving.package import BENTO_DIR, build_bento

    if config.package.key:
        signer(config.package.key)  # before anything is built

    candidate = record_of(inputs["approval"], "approval", ("candidate",))["candidate"]
    approval = require_approved(open_ledger(config), str(candidate), evidence_of(inputs, context.lineage))
    if approval.product != config.gate.product:
        raise GateError(
            f"candidate {approval.candidate} was approved for product {approval.product}, this is for "
            f"{config.gate.product}",
            f"--set gate.product={approval.product}",
        )
    record = build_bento(
        inputs["model"],
        approval.model_dump(),
        read_json(inputs["evaluation"] / METRICS_FILE),
        context.lineage,
        name=config.package.name,
        limits=config.package.limits,
        traffic=config.package.traffic,
        publish_card=config.package.publish_card,
        out=outputs["bento"],
    )
    summary = record.summary
    if config.package.key:
        files = {f"{BENTO_DIR}/{file.path}": file.sha256 for file in record.files}
        what = record.model_dump(mode="json", exclude={"files"})
        said = signed(files, PACKAGE, {"package": what, "approval": approval.model_dump()}, config.package.key)
        write_json(outputs["bento"] / ATTESTATION_FILE, said)
        summary += ", signed"
    return StepResult(summary=summary, facts=record.facts)
