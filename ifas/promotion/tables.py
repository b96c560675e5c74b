"""The ledger's tables. Databases refuse to change or remove a row of `decisions` and `products`, by triggers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Boolean, CheckConstraint, Connection, ForeignKey, String, Text, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

#: State -> states that may follow it. `refused` failed the gate, and only an override gets it approved. `pending` and
#: `refused` follow themselves when one of several reviewers approves, or a gate signs its result later. `superseded`:
#: another was approved for the product, or it was judged again; one that was approved before is approved again when
#: its successor is revoked.
TRANSITIONS: dict[str, tuple[str, ...]] = {
    "": ("pending", "refused"),
    "pending": ("pending", "approved", "rejected", "expired", "superseded"),
    "refused": ("refused", "approved"),
    "approved": ("superseded", "revoked"),
    "superseded": ("approved", "revoked"),
    "rejected": (),
    "expired": (),
    "revoked": (),
}
STATES = tuple(state for state in TRANSITIONS if state)


#: Name of the constraint that lets a candidate have these states only.
STATE_CHECK = "candidates_state"


class Base(DeclarativeBase):
    """Metadata of the ledger."""


class CandidateRow(Base):
    """A model that went through the gate. Only `state` ever changes."""

    __tablename__ = "candidates"
    __table_args__ = (CheckConstraint(f"state IN {STATES}", name=STATE_CHECK),)

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
    """One decision about a candidate. `previous` is unique, so the chain can't fork.

    `statement`: the decision as its reviewer signed it, or the result as its gate did, a DSSE envelope; none where
    nobody has to sign.
    """

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
    statement: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    previous: Mapped[str] = mapped_column(String(64), unique=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)


class ProductRow(Base):
    """One registration of a product; see `ifas.promotion.products`."""

    __tablename__ = "products"

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(200), index=True)
    policy: Mapped[dict[str, Any]] = mapped_column(JSON)
    by_policy: Mapped[bool] = mapped_column(Boolean)
    ledger: Mapped[str | None] = mapped_column(String(32))
    people: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    follows: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    gates: Mapped[dict[str, list[str]] | None] = mapped_column(JSON(none_as_null=True))
    statement: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    actor: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[str] = mapped_column(String(40))
    previous: Mapped[str] = mapped_column(String(64), unique=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)


def append_only(table: str, dialect: str) -> tuple[str, ...]:
    """Statements that make a table refuse changes and removals."""
    said = f"{table} is append-only"
    if dialect == "sqlite":
        return tuple(
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{said}'); END"
            for verb in ("UPDATE", "DELETE")
        )
    return (
        f"CREATE OR REPLACE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{said}'; END $$",
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()",
    )


@event.listens_for(DecisionRow.__table__, "after_create")
@event.listens_for(ProductRow.__table__, "after_create")
def _make_append_only(table: Any, connection: Connection, **_: Any) -> None:
    for statement in append_only(table.name, connection.dialect.name):
        connection.exec_driver_sql(statement)
