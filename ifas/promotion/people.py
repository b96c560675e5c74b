"""Who decides about a product, and what proves that a decision is theirs: a statement signed with their own key.

A decision of a product that people approve is an in-toto statement in a DSSE envelope, by the reviewer's Ed25519 key.
The ledger keeps it with the decision, and each check of the ledger checks it again: against the keys that the product
had at that time. An account name proves nothing and counts for nothing there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ifas.core.errors import ConfigError, GateError
from ifas.promotion import statements

#: What a reviewer's statement says.
DECISION = "https://ifas.dev/attestations/decision/v1"
Verdict = Literal["approve", "reject", "revoke"]
#: State -> the decision that leads to it; `pending` and `refused` follow themselves while approvals are lacking.
VERDICTS: dict[str, Verdict] = {
    "approved": "approve",
    "pending": "approve",
    "refused": "approve",
    "rejected": "reject",
    "revoked": "revoke",
}


#: Actors that are no people.
NOBODY = ("gate", "ledger", "policy")
#: Neither commas, which join names, nor blanks at an end, which nobody sees.
Name = Annotated[str, Field(pattern=r"^[\w.@+-]([\w.@+ -]{0,62}[\w.@+-])?$")]


class People(BaseModel):
    """The people of a product. `reviewers`: name -> public keys (Ed25519, PEM) that speak for this person.

    A key may speak for several people: that of a review page, which has them sign in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reviewers: dict[Name, list[str]] = Field(min_length=1)
    approvals: int = Field(default=1, ge=1, le=100, description="reviewers who must approve")
    overriders: list[str] = Field(default=[], description="reviewers who may approve what the gate refused")
    submitter_may_approve: bool = Field(
        default=False, description="who submits a run is known by an account name only: a guard against slips"
    )
    pending_days: int | None = Field(
        default=None, ge=1, le=3650, description="a candidate that waits for longer expires"
    )

    @model_validator(mode="after")
    def _sound(self) -> People:
        for name, keys in self.reviewers.items():
            if name in NOBODY:
                raise ValueError(f"{name!r} is no person's name: the ledger uses it for what software does")
            if not keys:
                raise ValueError(f"reviewer {name!r} needs a key")
            for pem in keys:
                try:
                    statements.raw(pem)
                except ConfigError as error:
                    raise ValueError(f"the key of reviewer {name}: {error.what}") from error
        if unknown := sorted(set(self.overriders) - set(self.reviewers)):
            raise ValueError(f"overriders who are no reviewers: {', '.join(unknown)}")
        if self.approvals > len(self.reviewers):
            raise ValueError(f"{self.approvals} approvals are asked of {len(self.reviewers)} reviewers")
        if self.overriders and self.approvals > len(self.overriders):
            raise ValueError(f"{self.approvals} approvals are asked of {len(self.overriders)} overriders")
        return self

    def speaks(self, pem: str) -> list[str]:
        """The reviewers for whom a public key speaks."""
        mine = statements.raw(pem)
        return sorted(name for name, keys in self.reviewers.items() if mine in map(statements.raw, keys))


class Decision(BaseModel):
    """What a reviewer signs.

    Attributes:
        ledger, registration: id of the ledger, and hash of the product's registration that asks for the signature.
        record_sha256: of all of the candidate's record, its figures included; the statement's subject.
        at: time of the ledger's entry.
        reinstates: of a revocation: the candidate that is champion again by it; empty: none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Verdict
    override: bool
    reviewer: str
    reason: str
    candidate: str
    product: str
    evidence_sha256: str
    evidence: dict[str, str]
    record_sha256: str
    ledger: str
    registration: str
    at: str
    reinstates: str = ""


def sign(people: People, decision: Decision, key: str) -> dict[str, Any]:
    """The envelope of a decision.

    Args:
        decision: with an empty reviewer: the one whose key it is.
        key: reference of the private key; see `statements.signer`.

    Raises:
        GateError: the key speaks for nobody here, for another person, or for several and none is named.
        ConfigError: there is no such key.
    """
    names = people.speaks(statements.public_pem(key))
    shown = statements.shown(key)
    fix = "the product's administrator adds reviewers: ifas product register --reviewer NAME=KEY.pub"
    if not names:
        raise GateError(f"{shown} is of no reviewer of product {decision.product}", fix)
    reviewer = decision.reviewer or (names[0] if len(names) == 1 else "")
    if not reviewer:
        raise GateError(f"{shown} speaks for {', '.join(names)}", "say for whom: --as NAME")
    if reviewer not in names:
        raise GateError(f"{shown} does not speak for {reviewer}, it does for {', '.join(names)}", fix)
    said = decision.model_copy(update={"reviewer": reviewer}).model_dump(exclude={"record_sha256"})
    return statements.signed({f"candidate/{decision.candidate}": decision.record_sha256}, DECISION, said, key)


def read(people: People, envelope: Mapping[str, Any]) -> Decision:
    """The decision in an envelope, if one of its reviewer's keys has signed it.

    Raises:
        GateError: not signed by a reviewer of the product in that person's name, or no decision.
    """
    claimed = str(statements.unverified(envelope).get("predicate", {}).get("reviewer", ""))
    keys = people.reviewers.get(claimed, [])
    if not keys:
        raise GateError(f"it is signed by {claimed or 'nobody'}, who is no reviewer of the product", "decide again")
    return _read(claimed, tuple(keys), json.dumps(envelope, sort_keys=True))


@lru_cache(maxsize=4096)  # every check of a ledger reads all of its signatures again
def _read(claimed: str, keys: tuple[str, ...], envelope: str) -> Decision:
    statement = statements.verified(json.loads(envelope), DECISION, keys, f"decision of {claimed}")
    try:
        (subject,) = statement["subject"]
        found = Decision(**statement["predicate"], record_sha256=subject["digest"]["sha256"])
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise GateError(f"what {claimed} signed is no decision: {error}", "decide again") from error
    # Whose keys were tried was read before anything was checked.
    if found.reviewer != claimed or subject["name"] != f"candidate/{found.candidate}":
        raise GateError(f"{claimed} signed a decision of {found.reviewer}", "decide again")
    return found


def lacking(people: People, deciders: Iterable[str]) -> int:
    """How many approvals are still needed, of other reviewers than these."""
    return max(0, people.approvals - len(set(deciders)))
