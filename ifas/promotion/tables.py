"""The ledger's two tables. Databases refuse to change or remove a row of `decisions`, by triggers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, CheckConstraint, Connection, ForeignKey, String, Text, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ifas.database.connection import Use

#: State -> states that may follow it. `refused` failed the gate; `approved` and `rejected` are final.
TRANSITIONS: dict[str, tuple[str, ...]] = {
    "": ("pending", "refused"),
    "pending": ("approved", "rejected"),
    "refused": (),
    "approved": (),
    "rejected": (),
}
STATES = tuple(state for state in TRANSITIONS if state)


class Base(DeclarativeBase):
    """Metadata of the ledger."""


class CandidateRow(Base):
    """A model that went through the gate. Only `state` ever changes."""

    __tablename__ = "candidates"
    __table_args__ = (CheckConstraint(f"state IN {STATES}", name="candidates_state"),)

    id: Mapped[str] = mapped_column(String(12), primary_key=True)
    product: Mapped[str] = mapped_column(String(200), index=True)
    run_id: Mapped[str] = mapped_column(String(200))
    created: Mapped[str] = mapped_column(String(40))
    state: Mapped[str] = mapped_column(String(16))
    model_sha256: Mapped[str] = mapped_column(String(64))
    evidence_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    dataset_revision: Mapped[str] = mapped_column(String(200))
    evidence: Mapped[dict[str, str]] = mapped_column(JSON)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)
    decision: Mapped[dict[str, Any]] = mapped_column(JSON)
    facts: Mapped[dict[str, Any]] = mapped_column(JSON)


class DecisionRow(Base):
    """One change of a candidate's state. `previous` is unique, so the chain can't fork."""

    __tablename__ = "decisions"

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    candidate_id: Mapped[str] = mapped_column(ForeignKey("candidates.id"), index=True)
    from_state: Mapped[str] = mapped_column(String(16))
    to_state: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)
    evidence_sha256: Mapped[str] = mapped_column(String(64))
    record_sha256: Mapped[str] = mapped_column(String(64))
    at: Mapped[str] = mapped_column(String(40))
    previous: Mapped[str] = mapped_column(String(64), unique=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)


#: Statements by dialect that make `decisions` append-only.
APPEND_ONLY: dict[str, tuple[str, ...]] = {
    "sqlite": tuple(
        f"CREATE TRIGGER decisions_no_{verb.lower()} BEFORE {verb} ON decisions "
        "BEGIN SELECT RAISE(ABORT, 'decisions is append-only'); END"
        for verb in ("UPDATE", "DELETE")
    ),
    "postgresql": (
        "CREATE OR REPLACE FUNCTION decisions_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'decisions is append-only'; END $$",
        "CREATE TRIGGER decisions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON decisions "
        "FOR EACH STATEMENT EXECUTE FUNCTION decisions_append_only()",
    ),
}


@event.listens_for(DecisionRow.__table__, "after_create")
def _make_append_only(_table: Any, connection: Connection, **_: Any) -> None:
    for statement in APPEND_ONLY[connection.dialect.name]:
        connection.exec_driver_sql(statement)


LEDGER = Use("ledger", "gate.ledger (or IFAS_LEDGER)", Base.metadata, lock=0x1FA5_1ED6)
