"""What proves that a gate has judged a candidate: its result, signed with the gate's own key.

A gate that has a key (`gate.key`) signs each result as an in-toto statement in a DSSE envelope, which the ledger keeps
with its entry. It also names the entry before it, so each of these signatures seals the ledger up to there. A product
may name the public keys of its gates: then a result that none of them has signed is for nobody to approve, except by
an override.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ifas.core.errors import GateError, IfasError
from ifas.promotion import chain, statements
from ifas.promotion.candidate import GATE, Candidate, Entry
from ifas.promotion.products import Product

#: What a gate's statement says.
RESULT = "https://ifas.dev/attestations/gate/v1"
#: What of a rule's outcome is signed.
OF_RULE = ("id", "metric", "slice", "kind", "limit", "value", "margin", "passed")
HOW = "run the gate again with gate.key, or ask an overrider of the product: ifas approve --override"


class Result(BaseModel):
    """What a gate signs.

    Attributes:
        rules: outcome of each rule: its limit, the figure, the margin, whether it passed.
        ledger, registration: id of the ledger, and hash of the product's registration; empty: it is not registered.
        record_sha256: of all of the candidate's record, its figures included; the statement's subject.
        at, follows: time of the ledger's entry, and hash of the one before it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: str
    product: str
    passed: bool
    policy: str
    policy_sha256: str
    rules: list[dict[str, Any]]
    evidence_sha256: str
    evidence: dict[str, str]
    record_sha256: str
    ledger: str
    registration: str
    at: str
    follows: str

    @classmethod
    def of(cls, candidate: Candidate, product: Product | None, at: str, follows: str) -> Result:
        """The result about a candidate, as the ledger's entry `at` has it."""
        judged = candidate.decision
        return cls(
            candidate=candidate.id,
            product=candidate.product,
            passed=bool(judged.get("passed")),
            policy=str(judged.get("policy", "")),
            policy_sha256=candidate.evidence.get("policy", ""),
            rules=[{name: rule.get(name) for name in OF_RULE} for rule in judged.get("rules", [])],
            evidence_sha256=candidate.evidence_sha256,
            evidence=candidate.evidence,
            record_sha256=chain.record(candidate.as_dict()),
            ledger=(product.ledger or "") if product else "",
            registration=product.hash if product else "",
            at=at,
            follows=follows,
        )


def sign(result: Result, product: Product | None, key: str) -> dict[str, Any]:
    """The envelope of a result.

    Args:
        key: reference of the gate's private key; see `statements.signer`.

    Raises:
        GateError: the product names its gates, and the key is of none.
        ConfigError: there is no such key.
    """
    require_key(product, key)
    said = result.model_dump(mode="json", exclude={"record_sha256"})
    return statements.signed({f"candidate/{result.candidate}": result.record_sha256}, RESULT, said, key)


def require_key(product: Product | None, key: str) -> None:
    """Raises GateError where a product names its gates and a private key is of none; ConfigError: no such key."""
    if product and product.gates:
        mine = statements.raw(statements.public_pem(key))
        if all(mine != statements.raw(pem) for pem in _keys(product.gates)):
            raise GateError(
                f"{statements.shown(key)} is of no gate of product {product.name} ({', '.join(product.gates)})",
                "set gate.key to one of theirs, or have it registered: ifas product register --gate NAME=KEY.pub",
            )


def unsigned(product: Product | None, candidate: Candidate, entries: Sequence[Entry]) -> str:
    """Why a gate's result about a candidate does not count for its product today; empty if it does.

    Args:
        entries: the decisions about the candidate.
    """
    if product is None or not product.gates or signer_of(product, candidate, entries):
        return ""
    return f"no gate of product {product.name} ({', '.join(product.gates)}) has signed the result about {candidate.id}"


def signer_of(product: Product, candidate: Candidate, entries: Sequence[Entry]) -> str:
    """Name of the gate of today's product that has signed the result about a candidate; empty: none."""
    for name, pems in (product.gates or {}).items():
        for entry in entries:
            if entry.actor != GATE or entry.statement is None:
                continue
            try:
                result = _read(tuple(pems), json.dumps(entry.statement, sort_keys=True))
            except IfasError:
                continue  # of a gate that is none today, or never was
            if result == _expected(result, candidate):
                return name
    return ""


def wrong(entry: Entry, candidate: Candidate, product: Product | None) -> str:
    """What is wrong with the statement of a gate's entry; empty if nothing is.

    Args:
        product: as it was registered then. One that names no gates has no keys to check with: what is stated must fit.
    """
    if entry.statement is None:
        return "it is not signed" if entry.from_state else ""
    envelope = json.dumps(entry.statement, sort_keys=True)
    try:
        if product and product.gates:
            result = _read(tuple(_keys(product.gates)), envelope)
        elif entry.from_state:
            return f"product {candidate.product} has no gates whose signature it could be"
        else:
            said = statements.unverified(entry.statement)
            if said.get("predicateType") != RESULT:
                return "it bears a signature that belongs elsewhere"
            result = _result(said)
    except IfasError as error:
        return f"the gate's result: {error.what}"
    told = Result.of(candidate, product, entry.at, entry.previous)
    fields = [name for name in Result.model_fields if getattr(told, name) != getattr(result, name)]
    return f"the gate's signature is about another {fields[0]}" if fields else ""


def _expected(result: Result, candidate: Candidate) -> Result:
    """What a gate must have signed about a candidate, whenever that was."""
    told = Result.of(candidate, None, result.at, result.follows)
    return told.model_copy(update={"ledger": result.ledger, "registration": result.registration})


def _keys(gates: Mapping[str, Sequence[str]]) -> list[str]:
    return [pem for pems in gates.values() for pem in pems]


@lru_cache(maxsize=4096)  # every check of a ledger reads all of its signatures again
def _read(keys: tuple[str, ...], envelope: str) -> Result:
    return _result(statements.verified(json.loads(envelope), RESULT, keys, "it"))


def _result(statement: Mapping[str, Any]) -> Result:
    try:
        (subject,) = statement["subject"]
        found = Result(**statement["predicate"], record_sha256=subject["digest"]["sha256"])
        named = subject["name"]
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise GateError(f"what was signed is no gate's result: {error}", "run the gate again") from error
    if named != f"candidate/{found.candidate}":
        raise GateError(f"a gate's result about {found.candidate} names {named}", "run the gate again")
    return found
