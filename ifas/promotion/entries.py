"""What the ledger writes and reads inside a transaction: a decision at the end of the chain, the champion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ifas.promotion import chain
from ifas.promotion.candidate import Candidate, Entry
from ifas.promotion.clock import after
from ifas.promotion.tables import CandidateRow, DecisionRow

#: Actor of what follows from another decision or from the time, by itself.
LEDGER_ITSELF = "ledger"


def champion(session: Session, product: str) -> CandidateRow | None:
    query = (
        select(CandidateRow)
        .join(DecisionRow, DecisionRow.candidate_id == CandidateRow.id)
        .where(CandidateRow.product == product, CandidateRow.state == "approved", DecisionRow.to_state == "approved")
        .order_by(DecisionRow.seq.desc())
        .limit(1)
    )
    return session.scalars(query).first()


def append(
    session: Session,
    row: CandidateRow,
    after_it: str,
    actor: str,
    reason: str,
    statement: Mapping[str, Any] | None = None,
    at: str = "",
) -> Entry:
    """Adds a decision and brings the candidate to its state. `at`: its time, from `clock.after`; else that of now."""
    last = session.scalars(select(DecisionRow).order_by(DecisionRow.seq.desc()).limit(1)).first()
    at = at or after(session)
    first = not session.scalar(select(func.count()).where(DecisionRow.candidate_id == row.id))
    before, row.state = ("" if first else row.state), after_it
    fields = {
        "seq": last.seq + 1 if last else 1,
        "candidate_id": row.id,
        "from_state": before,
        "to_state": after_it,
        "actor": actor,
        "reason": reason,
        "evidence_sha256": row.evidence_sha256,
        "record_sha256": chain.record(Candidate.of(row).as_dict()),
        "at": at,
        "statement": dict(statement) if statement else None,
        "previous": last.hash if last else "",
    }
    made = DecisionRow(**fields, hash=chain.link(fields))
    session.add(made)
    session.flush()
    return Entry.of(made)
