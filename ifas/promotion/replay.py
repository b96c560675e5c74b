"""What another policy would have said of the last candidates, by the ledger's own figures. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ifas.core.errors import GateError
from ifas.promotion.candidate import Candidate
from ifas.promotion.gate import Decision, decide
from ifas.promotion.ledger import Ledger
from ifas.promotion.policy import Policy


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A candidate with its own decision in the ledger, and that of another policy."""

    candidate: Candidate
    decision: Decision

    @property
    def passed_then(self) -> bool:
        """Whether it passed the gate that it went through."""
        return bool(self.candidate.decision.get("passed"))

    @property
    def failed(self) -> list[str]:
        """Rules that fail now, with their slices."""
        return [f"{rule.id} ({rule.slice})" for rule in self.decision.rules if not rule.passed]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "candidate": self.candidate.id,
            "created": self.candidate.created,
            "state": self.candidate.state,
            "policy": self.candidate.decision.get("policy"),
            "passed": self.passed_then,
            "new": self.decision.as_dict(),
        }


def replay(ledger: Ledger, product: str, policy: Policy, last: int) -> Sequence[Replayed]:
    """The newest candidates of a product under another policy, newest first.

    Each is compared with the champion that its own gate compared it with.

    Raises:
        GateError: the product has no candidates.
        DataError: the ledger was altered.
    """
    ledger.verify()
    found = ledger.list(product)[:last]
    if not found:
        others = sorted({one.product for one in ledger.list()})
        raise GateError(
            f"there is no candidate of product {product!r}",
            f"--product with one of: {', '.join(others)}" if others else "run its gate first: ifas run",
        )
    return [_again(ledger, one, policy) for one in found]


def _again(ledger: Ledger, candidate: Candidate, policy: Policy) -> Replayed:
    name = candidate.evidence.get("champion") or candidate.facts.get("champion")
    champion = ledger.get(name) if name else None
    decision = decide(
        candidate.metrics, champion.metrics if champion else None, policy, champion.id if champion else None
    )
    return Replayed(candidate=candidate, decision=decision)
