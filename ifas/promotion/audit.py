"""Checks whether the ledger was altered: each link of the chain, transition, signature, and each candidate's state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from ifas.core.errors import IfasError
from ifas.promotion import chain
from ifas.promotion.candidate import POLICY, Candidate, Entry
from ifas.promotion.people import VERDICTS, Decision, People, lacking, read
from ifas.promotion.products import Product, in_force
from ifas.promotion.tables import TRANSITIONS, CandidateRow, DecisionRow

#: States that follow from another decision, by themselves.
OF_ITSELF = ("expired", "superseded")


@dataclass
class _Told:
    """What the decisions about one candidate have said so far."""

    state: str = ""
    was_approved: bool = False
    #: Each approval that was signed, as it stands in the ledger.
    signed: list[Entry] = field(default_factory=list)


def audit(session: Session, products: Sequence[Product]) -> tuple[str, str]:
    """(hash of the last decision, first place where the ledger was altered; empty if it was not)."""
    candidates = {row.id: Candidate.of(row) for row in session.scalars(select(CandidateRow))}
    told = {name: _Told() for name in candidates}
    head, heads = "", {0: ""}
    for position, row in enumerate(session.scalars(select(DecisionRow).order_by(DecisionRow.seq)), start=1):
        entry = Entry.of(row)
        candidate = candidates.get(entry.candidate_id)
        if entry.seq != position or entry.previous != head:
            wrong = "the decision before it is gone"
        elif candidate is None:
            wrong = "the candidate is gone"
        else:
            wrong = _next(entry, candidate, told[candidate.id], products)
        if wrong:
            return head, f"decision {entry.seq} about candidate {entry.candidate_id}: {wrong}"
        head = heads[entry.seq] = entry.hash
    for product in products:
        if product.follows and heads.get(product.follows["seq"]) != product.follows["hash"]:
            return head, f"decision {product.follows['seq']}: it is not the one that a registration followed"
    for name, candidate in candidates.items():
        if candidate.state != told[name].state:
            said = told[name].state or "nothing"
            return head, f"candidate {name}: it says {candidate.state}, its decisions say {said}"
    return head, ""


def history(candidate: Candidate, entries: Sequence[Entry], products: Sequence[Product]) -> str:
    """What is wrong with the decisions about one candidate, without the rest of the chain; empty if nothing is."""
    told = _Told()
    for entry in entries:
        if wrong := _next(entry, candidate, told, products):
            return f"decision {entry.seq}: {wrong}"
    same = candidate.state == told.state
    return "" if same else f"it says {candidate.state}, its decisions say {told.state or 'nothing'}"


def _next(entry: Entry, candidate: Candidate, told: _Told, products: Sequence[Product]) -> str:
    """What is wrong with the next decision about a candidate; empty if nothing is, and then it is told."""
    wrong = _broken(entry, candidate, told) or _unproven(
        entry, candidate, told, in_force(products, candidate.product, entry.seq, entry.at)
    )
    told.state = entry.to_state
    told.was_approved |= entry.to_state == "approved"
    if entry.statement is not None:
        told.signed.append(entry)
    return wrong


def _broken(entry: Entry, candidate: Candidate, told: _Told) -> str:
    """What is wrong with a decision, given the candidate and what was decided about it before; empty if nothing is."""
    if chain.link(entry.as_dict()) != entry.hash:
        return "its text does not fit its hash"
    back = (entry.from_state, entry.to_state) == ("superseded", "approved") and not told.was_approved
    if entry.from_state != told.state or entry.to_state not in TRANSITIONS[told.state] or back:
        return f"it can't go from {told.state!r} to {entry.to_state!r}"
    if chain.record(candidate.as_dict()) != entry.record_sha256:
        return "the candidate's record was changed after it"
    bound = chain.evidence(candidate.product, candidate.evidence, candidate.decision)
    if not bound == entry.evidence_sha256 == candidate.evidence_sha256:
        return "it is bound to other evidence than the candidate's"
    return ""


def _unproven(entry: Entry, candidate: Candidate, told: _Told, product: Product | None) -> str:
    """What a decision lacks of the signatures that its product asked for at that time; empty if nothing."""
    people = product.parsed_people if product else None
    if entry.from_state == "" or entry.to_state in OF_ITSELF or entry.from_state == "superseded":
        return ""
    if entry.statement is None:
        if entry.to_state in (entry.from_state, "") or (entry.from_state == "refused"):
            return "it is not signed"
        by_policy = entry.actor == POLICY and entry.to_state == "approved" and product is not None and product.by_policy
        return "" if people is None or by_policy else f"product {candidate.product} has reviewers, and none signed it"
    if people is None:
        return f"product {candidate.product} has no reviewers whose signature it could be"
    try:
        decision = read(people, entry.statement)
    except IfasError as error:
        return error.what
    if what := differs(decision, entry, candidate):
        return what
    if entry.from_state == "refused" and decision.reviewer not in people.overriders:
        return f"{decision.reviewer} may not approve what the gate refused"
    if entry.to_state == "approved" and lacking(people, [*approvers(people, told.signed), decision.reviewer]):
        return f"{people.approvals} reviewers must approve, fewer did"
    return ""


def approvers(people: People, entries: Sequence[Entry]) -> list[str]:
    """The reviewers whose approval in these entries counts by today's keys."""
    found = []
    for entry in entries:
        try:
            decision = read(people, entry.statement or {})
        except IfasError:
            continue  # a reviewer of then who is none now
        if decision.decision == "approve":
            found.append(decision.reviewer)
    return list(dict.fromkeys(found))


def differs(decision: Decision, entry: Entry, candidate: Candidate) -> str:
    """How a signed decision differs from the entry that holds it; empty if it does not."""
    said = {
        "decision": (decision.decision, VERDICTS.get(entry.to_state)),
        "reviewer": (decision.reviewer, entry.actor),
        "reason": (decision.reason, entry.reason),
        "candidate": (decision.candidate, candidate.id),
        "product": (decision.product, candidate.product),
        "evidence": (decision.evidence, candidate.evidence),
        "evidence's hash": (decision.evidence_sha256, candidate.evidence_sha256),
        "override": (decision.override, entry.from_state == "refused"),
    }
    return next((f"its signature is about another {name}" for name, (one, other) in said.items() if one != other), "")
