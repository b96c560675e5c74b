"""The records that the ledger returns: plain values, detached from the database."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from ifas.promotion.tables import CandidateRow, DecisionRow

#: Who approves where no person does.
POLICY = "policy"
#: Who judges; its entries bear the gate's signature, where it has a key.
GATE = "gate"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that went through the gate."""

    id: str
    product: str
    run_id: str
    created: str
    state: str
    model_sha256: str
    evidence_sha256: str
    dataset_revision: str
    evidence: dict[str, str]
    metrics: dict[str, Any]
    decision: dict[str, Any]
    facts: dict[str, Any]

    @classmethod
    def of(cls, row: CandidateRow) -> Candidate:
        """The candidate in a row."""
        return cls(**{name: getattr(row, name) for name in cls.__dataclass_fields__})

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One decision about a candidate, as the chain holds it."""

    seq: int
    candidate_id: str
    from_state: str
    to_state: str
    actor: str
    reason: str
    evidence_sha256: str
    record_sha256: str
    at: str
    statement: dict[str, Any] | None = None
    previous: str
    hash: str

    @classmethod
    def of(cls, row: DecisionRow) -> Entry:
        """The decision in a row."""
        return cls(**{name: getattr(row, name) for name in cls.__dataclass_fields__})

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


class DecisionLike(Protocol):
    """What the ledger needs of a gate decision."""

    @property
    def passed(self) -> bool:
        """Whether every rule passed."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        ...
