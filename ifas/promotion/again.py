"""Judges a pending candidate once more, when another champion or another policy has come since its gate."""

from __future__ import annotations

from pydantic import ValidationError

from ifas.core.errors import GateError
from ifas.promotion.candidate import Candidate
from ifas.promotion.gate import decide
from ifas.promotion.ledger import Ledger
from ifas.promotion.policy import Policy


def judge_again(ledger: Ledger, candidate: str) -> Candidate:
    """Submits a candidate's figures against today's champion and policy, as a new one; the old one is superseded.

    The figures and the evidence are those that the ledger has: no file is needed. The policy is the product's, or where
    the product is not registered, the one that the candidate was judged by. The champion's figures are those of its own
    evaluation, which the decision notes where they are of other images.

    Raises:
        GateError: it is not pending, the ledger does not hold the policy, or its product asks for a signature of its
            gates and no key of theirs is at hand.
        DataError: the ledger was altered.
    """
    found, _ = ledger.checked(candidate)
    if found.state != "pending":
        raise GateError(f"candidate {found.id} is {found.state}: only a pending one is judged again", "see `ifas show`")
    product, champion = ledger.product(found.product), ledger.champion(found.product)
    try:
        policy = product.parsed_policy if product else Policy.model_validate(found.facts.get("policy"))
    except ValidationError as error:
        raise GateError(
            f"the ledger does not hold the policy of candidate {found.id}", "run its gate again: ifas run"
        ) from error
    if product and product.gates and not ledger.gate_key:
        raise GateError(
            f"candidate {found.id} is to be judged by today's champion and policy, and no key of product "
            f"{product.name}'s gates is at hand to sign that",
            "run its gate again where gate.key is set: ifas run",
        )
    name = champion.id if champion else ""
    again = ledger.submit(
        product=found.product,
        run_id=found.run_id,
        evidence={**found.evidence, "policy": policy.sha256, "champion": name},
        model_sha256=found.model_sha256,
        dataset_revision=found.dataset_revision,
        metrics=found.metrics,
        decision=decide(found.metrics, champion.metrics if champion else None, policy, name or None),
        facts={**found.facts, "policy": policy.model_dump(mode="json"), "champion": name or None},
    )
    if again.id == found.id:
        return again  # the champion and the policy are again those that it was judged by
    against = f"{f'champion {name}' if name else 'no champion'} and policy {policy.name}"
    ledger.supersede(found.id, again.id, f"against {against}")
    return again


def today(ledger: Ledger, candidate: str) -> str:
    """Id of the candidate that stands for one today: what it was judged again as last, or itself.

    The record that a gate wrote names the candidate of that time, also when people have decided about a later one.

    Raises:
        GateError: there is no such candidate.
    """
    found = ledger.get(candidate)
    if found.state != "superseded":
        return found.id
    return next(one.id for one in ledger.list(found.product) if _judged(one) == _judged(found))


def _judged(candidate: Candidate) -> tuple[str, dict[str, str]]:
    """What a candidate is, whatever it was judged by."""
    evidence = {name: one for name, one in candidate.evidence.items() if name not in ("policy", "champion")}
    return candidate.run_id, evidence
