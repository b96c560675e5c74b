"""What the ledger says of a candidate: the one answer to "may this be shipped?".

No file answers it. Whoever needs to know names a candidate and, by their hashes, the things at hand; the ledger is
checked, and says whether these things are what was approved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from ifas.core.errors import GateError, NotApproved
from ifas.promotion.candidate import GATE, Candidate, Entry
from ifas.promotion.ledger import Ledger
from ifas.promotion.people import VERDICTS


class Approval(BaseModel):
    """The state of a candidate; who brought it there, why and when (empty while nobody has); what that is about.

    `statements`: what the gate and reviewers signed, DSSE envelopes; none where they have no keys.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    candidate: str
    product: str
    state: str
    actor: str
    reason: str
    at: str
    statements: list[dict[str, Any]]
    evidence: dict[str, str]
    evidence_sha256: str
    model_sha256: str


def approval_of(ledger: Ledger, candidate: str) -> Approval:
    """The state of a candidate, whatever it is.

    Raises:
        DataError: the ledger was altered.
        GateError: there is no such candidate.
    """
    return _of(*ledger.checked(candidate))


def _of(found: Candidate, history: Sequence[Entry]) -> Approval:
    verdict = VERDICTS.get(found.state) if found.state not in ("pending", "refused") else None
    # With several reviewers, each one's; of an approval that was taken back and given again, the first.
    by = [entry for entry in history if entry.from_state and VERDICTS.get(entry.to_state) == verdict] if verdict else []
    by = [entry for entry in by if entry.from_state != "superseded" and entry.actor != GATE]
    signed = [entry for entry in history if entry.actor == GATE or entry in by]
    return Approval(
        candidate=found.id,
        product=found.product,
        state=found.state,
        actor=", ".join(dict.fromkeys(entry.actor for entry in by)),
        reason="; ".join(dict.fromkeys(entry.reason for entry in by)),
        at=by[-1].at if by else "",
        statements=[entry.statement for entry in signed if entry.statement],
        evidence=found.evidence,
        evidence_sha256=found.evidence_sha256,
        model_sha256=found.model_sha256,
    )


def require_approved(ledger: Ledger, candidate: str, evidence: Mapping[str, str]) -> Approval:
    """The approval of a candidate, if there is one and it is about these things.

    Args:
        evidence: name -> SHA-256 of what is at hand, by the names under which the gate has recorded its evidence.

    Raises:
        NotApproved: it is in any other state than approved.
        DataError: the ledger was altered.
        GateError: there is no such candidate, or it was approved with something else than this.
    """
    found, history = ledger.shippable(candidate)
    approval = _of(found, history)
    if approval.state != "approved":
        raise NotApproved(
            f"candidate {approval.candidate} is {approval.state}, not approved",
            f'a person can decide: ifas approve {approval.candidate} --reason "..."'
            if approval.state == "pending"
            else "train and evaluate a new candidate",
        )
    for name, sha256 in evidence.items():
        if found.evidence.get(name) != sha256:
            with_what = f"with {found.evidence[name][:12]}" if name in found.evidence else "without any"
            raise GateError(
                f"{name}: SHA-256 {sha256[:12]}, but candidate {approval.candidate} was approved {with_what}",
                "package what was approved, or run the gate on this and have it approved",
            )
    return approval
