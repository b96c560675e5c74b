"""approve: candidate + policy -> its approval state. Nothing is approved unless the policy or a person does it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.config import RunConfig
from ifas.core.errors import DataError, StaleCandidate
from ifas.core.files import read_json, write_json
from ifas.core.progress import emit
from ifas.core.records import StepResult
from ifas.steps.announce import announcing
from ifas.steps.contract import Context
from ifas.steps.gate import policy_of
from ifas.steps.ledger import open_ledger, open_products

if TYPE_CHECKING:
    from ifas.promotion.ledger import Ledger


def run(config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context) -> StepResult:
    """Approves a passed candidate when the configuration says `by_policy`; else reports the state as it is.

    Of a candidate that was judged again meanwhile, that of the later one.
    """
    from ifas.promotion.again import today
    from ifas.promotion.approval import approval_of

    given = record_of(inputs["candidate"], "candidate", ("candidate",))
    ledger = open_ledger(config)
    approval = approval_of(ledger, today(ledger, given["candidate"]))
    if config.approve.by_policy and approval.state == "pending":
        policy_of(config, open_products(config).get(approval.product))
        reason = f"every rule of the gate policy passed in run {context.run_id}"
        with announcing(config, ledger):
            approval = approval_of(ledger, _approved(ledger, approval.candidate, reason))
    record = approval.model_dump()
    write_json(outputs["approval"], record)
    summary = f"candidate {approval.candidate} is {approval.state}"
    if approval.actor:
        summary += f" by {approval.actor}"
    if approval.state == "pending":
        summary += f'; decide with: ifas approve {approval.candidate} --reason "..."'
    return StepResult(summary=summary, facts={"approval": record})


def _approved(ledger: Ledger, candidate: str, reason: str) -> str:
    """Approves a candidate by policy. While others become champion meanwhile, it is judged again, as a new one."""
    from ifas.promotion.again import judge_again
    from ifas.promotion.candidate import POLICY

    while True:
        try:
            return ledger.approve(candidate, actor=POLICY, reason=reason).id
        except StaleCandidate as stale:
            again = judge_again(ledger, candidate)
            emit("note", "approve", text=f"{stale.what}: judged again as candidate {again.id}, {again.state}")
            candidate = again.id
            if again.state != "pending":
                return candidate


def record_of(file: Path, kind: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """The JSON record that an earlier step wrote. Raises DataError where the file is not such a record."""
    found = read_json(file)
    if not isinstance(found, dict) or any(not isinstance(found.get(key), str) for key in keys):
        article = "an" if kind[0] in "aeiou" else "a"
        raise DataError(f"{file} is not {article} {kind} as ifas writes it", "name the file that the step before wrote")
    return found
