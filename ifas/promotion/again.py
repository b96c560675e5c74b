"""Judges a pending candidate once more, when another champion has come since its gate."""

from __future__ import annotations

from pydantic import ValidationError

from ifas.core.errors import GateError
from ifas.promotion.candidate import Candidate
from ifas.promotion.gate import decide
from ifas.promotion.ledger import Ledger
from ifas.promotion.policy import Policy


def judge_again(ledger: Ledger, candidate: str) -> Candidate:
    """Submits the candidate's figures against today's champion, as a new candidate; the old one is rejected.

    The figures, the evidence and the policy are those that the ledger has: no file is needed. The champion's figures
    are those of its own evaluation, which the decision notes where they are of other images.

    Raises:
        GateError: it is not pending, or it was submitted by a version of ifas that did not keep the policy.
    """
    found = ledger.get(candidate)
    if found.state != "pending":
        raise GateError(f"candidate {found.id} is {found.state}: only a pending one is judged again", "see `ifas show`")
    try:
        policy = Policy.model_validate(found.facts.get("policy"))
    except ValidationError as error:
        raise GateError(
            f"the ledger does not hold the policy of candidate {found.id}", "run its gate again: ifas run"
        ) from error
    champion = ledger.champion(found.product)
    decision = decide(found.metrics, champion.metrics if champion else None, policy)
    name = champion.id if champion else ""
    again = ledger.submit(
        product=found.product,
        run_id=found.run_id,
        evidence={**found.evidence, "champion": name},
        model_sha256=found.model_sha256,
        dataset_revision=found.dataset_revision,
        metrics=found.metrics,
        decision=decision,
        facts={**found.facts, "champion": name or None},
    )
    ledger.reject(found.id, actor="gate", reason=f"judged again, against {name or 'no champion'}, as {again.id}")
    return again
