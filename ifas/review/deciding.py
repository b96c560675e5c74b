"""The one place where the page decides: who may, and the calls of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ifas.core.account import UNVERIFIED
from ifas.core.errors import GateError, StaleCandidate
from ifas.promotion.again import judge_again
from ifas.promotion.candidate import Candidate, Entry
from ifas.promotion.gates import unsigned
from ifas.promotion.ledger import Ledger
from ifas.promotion.people import People
from ifas.promotion.products import Product
from ifas.promotion.statements import public_pem
from ifas.review.accounts import Account

Action = Literal["approve", "override", "reject", "revoke"]
ACTIONS: tuple[Action, ...] = ("approve", "override", "reject", "revoke")
#: The states in which a candidate may be.
FROM: dict[Action, tuple[str, ...]] = {
    "approve": ("pending",),
    "override": ("refused", "pending"),
    "reject": ("pending",),
    "revoke": ("approved",),
}
LONGEST_REASON = 4000


class JudgedAgain(GateError):
    """A candidate was not approved, but judged again, as another one: `candidate`, which is to be looked at."""

    def __init__(self, stale: StaleCandidate, again: Candidate) -> None:
        super().__init__(
            f"{stale.what}. It was judged again by today's, as candidate {again.id}, which is {again.state}",
            f"look at {again.id}, and decide about that",
        )
        self.candidate = again.id


def may(
    account: Account,
    candidate: Candidate,
    history: Sequence[Entry],
    action: Action,
    product: Product | None,
    key: str,
) -> str:
    """Why this account can't do this to this candidate, in words; empty: it can.

    Args:
        history: the decisions about the candidate.
        action: `override` approves what the gate refused, or what no gate of the product has signed.
        product: as it is registered; None where it is not.
        key: reference of the page's signing key; empty: it has none.
    """
    if not account.at_least("reviewer"):
        return f"you are signed in as {account.role}: reviewers and admins decide"
    if candidate.state not in FROM[action]:
        return {
            "refused": "the gate refused it",
            "approved": "it is approved already",
            "pending": "it is not approved, so there is nothing to revoke",
        }.get(candidate.state, f"it is {candidate.state}")
    ungated = unsigned(product, candidate, history)
    if action == "approve" and ungated:
        return ungated
    if action == "override" and candidate.state == "pending" and not ungated:
        return "the gate lets it pass"
    people = product.parsed_people if product else None
    if people is None:
        return f"product {candidate.product} has no overriders" if action == "override" else ""
    return _unsigned(account, candidate, action, people, key)


def _unsigned(account: Account, candidate: Candidate, action: Action, people: People, key: str) -> str:
    """Why a decision of this account would not count at a product with reviewers."""
    if action == "override" and account.name not in people.overriders:
        who = f": {', '.join(people.overriders)}" if people.overriders else ", which has none"
        return f"you are no overrider of product {candidate.product}{who}"
    if account.name not in people.reviewers:
        return f"you are no reviewer of product {candidate.product}: {', '.join(people.reviewers)}"
    if not key:
        return "this page has no key to sign decisions with (review.signing_key)"
    if account.name not in people.speaks(public_pem(key)):
        command = "approve --override" if action == "override" else action
        return f"this page's key does not speak for {account.name}: decide with your own, by `ifas {command} --key`"
    submitter = str(candidate.facts.get("submitter", "")).removesuffix(UNVERIFIED)
    if action in ("approve", "override") and submitter == account.name and not people.submitter_may_approve:
        return "you submitted it, so another reviewer must approve it"
    return ""


def decide(
    ledger: Ledger,
    account: Account,
    candidate: Candidate,
    history: Sequence[Entry],
    action: Action,
    reason: str,
    key: str = "",
) -> Candidate:
    """Approves, overrides the gate, rejects or revokes, in the name of who has signed in.

    Args:
        history: the decisions about the candidate.
        key: reference of the page's signing key, for products with reviewers.

    Raises:
        JudgedAgain: it was to be approved, but another champion or policy has come since its gate.
        StaleCandidate: the same of one whose gate was to be overridden.
        GateError: this account may not, or the candidate's state or the ledger's rules forbid it.
        DataError: the ledger was altered.
        ConfigError: the page's key can't be used.
    """
    product = ledger.product(candidate.product)
    if why := may(account, candidate, history, action, product, key):
        raise GateError(
            f"you can't {action} candidate {candidate.id}: {why}", "ask somebody who may, or look at another"
        )
    if len(reason) > LONGEST_REASON:
        raise GateError(f"the reason has {len(reason)} characters", f"write at most {LONGEST_REASON}")
    signs = product is not None and product.people is not None
    actor, key = (account.name, key) if signs else (f"{account.name} (review page)", "")
    try:
        if action in ("approve", "override"):
            override = action == "override"
            return ledger.approve(candidate.id, actor=actor, reason=reason, key=key, override=override)
        if action == "reject":
            return ledger.reject(candidate.id, actor=actor, reason=reason, key=key)
        return ledger.revoke(candidate.id, actor=actor, reason=reason, key=key)
    except StaleCandidate as stale:
        if action == "override":
            raise
        raise JudgedAgain(stale, judge_again(ledger, candidate.id)) from stale
