"""The one place where the page decides: who may, and the calls of the ledger."""

from __future__ import annotations

from typing import Literal

from ifas.core.errors import GateError, StaleCandidate
from ifas.promotion.again import judge_again
from ifas.promotion.candidate import Candidate
from ifas.promotion.ledger import Ledger
from ifas.review.accounts import Account

Action = Literal["approve", "reject", "revoke"]
ACTIONS: tuple[Action, ...] = ("approve", "reject", "revoke")
#: The state in which a candidate must be.
FROM: dict[Action, str] = {"approve": "pending", "reject": "pending", "revoke": "approved"}
LONGEST_REASON = 4000


class JudgedAgain(GateError):
    """A candidate was not approved, but judged again, as another one: `candidate`, which is to be looked at."""

    def __init__(self, stale: StaleCandidate, again: Candidate) -> None:
        super().__init__(
            f"{stale.what}. It was judged again by today's, as candidate {again.id}, which is {again.state}",
            f"look at {again.id}, and decide about that",
        )
        self.candidate = again.id


def may(account: Account, candidate: Candidate, action: Action) -> str:
    """Why this account can't do this to this candidate, in words; empty: it can."""
    if not account.at_least("reviewer"):
        return f"you are signed in as {account.role}: reviewers and admins decide"
    if action == "revoke" and not hasattr(Ledger, "revoke"):
        return "this ledger knows no revocation"
    if candidate.state == FROM[action]:
        return ""
    return {
        "refused": "the gate refused it",
        "approved": "it is approved already",
        "rejected": "it is rejected, for good",
        "pending": "it is not approved, so there is nothing to revoke",
    }.get(candidate.state, f"it is {candidate.state}")


def decide(ledger: Ledger, account: Account, candidate: Candidate, action: Action, reason: str) -> Candidate:
    """Approves, rejects or revokes, in the name of who has signed in.

    Raises:
        JudgedAgain: it was to be approved, but another champion or policy has come since its gate.
        GateError: this account may not, or the candidate's state or the ledger's rules forbid it.
        DataError: the ledger was altered.
    """
    if why := may(account, candidate, action):
        raise GateError(
            f"you can't {action} candidate {candidate.id}: {why}", "ask somebody who may, or look at another"
        )
    if len(reason) > LONGEST_REASON:
        raise GateError(f"the reason has {len(reason)} characters", f"write at most {LONGEST_REASON}")
    actor = f"{account.name} (review page)"
    try:
        done: Candidate = getattr(ledger, action)(candidate.id, actor=actor, reason=reason)
    except StaleCandidate as stale:
        raise JudgedAgain(stale, judge_again(ledger, candidate.id)) from stale
    return done
