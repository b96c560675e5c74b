"""Checks whether the ledger was altered: each link of the chain, each transition, each candidate's state."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from ifas.promotion import chain
from ifas.promotion.candidate import Candidate, Entry
from ifas.promotion.tables import TRANSITIONS, CandidateRow, DecisionRow


def audit(session: Session) -> tuple[str, str]:
    """(hash of the last decision, first place where the ledger was altered; empty if it was not)."""
    candidates = {row.id: Candidate.of(row) for row in session.scalars(select(CandidateRow))}
    states = dict.fromkeys(candidates, "")
    head = ""
    for position, row in enumerate(session.scalars(select(DecisionRow).order_by(DecisionRow.seq)), start=1):
        entry = Entry.of(row)
        wrong = _broken(entry, position, head, candidates.get(entry.candidate_id), states.get(entry.candidate_id, ""))
        if wrong:
            return head, f"decision {entry.seq} about candidate {entry.candidate_id}: {wrong}"
        states[entry.candidate_id] = entry.to_state
        head = entry.hash
    for name, candidate in candidates.items():
        if candidate.state != states[name]:
            said = states[name] or "nothing"
            return head, f"candidate {name}: it says {candidate.state}, its decisions say {said}"
    return head, ""


def _broken(entry: Entry, position: int, head: str, candidate: Candidate | None, state: str) -> str:
    """What is wrong with a decision, given the decision before it and the candidate's state; empty if nothing is."""
    if entry.seq != position or entry.previous != head:
        return "the decision before it is gone"
    if chain.link(entry.as_dict()) != entry.hash:
        return "its text does not fit its hash"
    if candidate is None:
        return "the candidate is gone"
    if entry.from_state != state or entry.to_state not in TRANSITIONS[state]:
        return f"it can't go from {state!r} to {entry.to_state!r}"
    if chain.record(candidate.as_dict()) != entry.record_sha256:
        return "the candidate's record was changed after it"
    bound = chain.evidence(candidate.product, candidate.evidence, candidate.decision)
    if not bound == entry.evidence_sha256 == candidate.evidence_sha256:
        return "it is bound to other evidence than the candidate's"
    return ""
