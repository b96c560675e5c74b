"""Checks a candidate's record without its ledger: who registered the product, who decided, and about what.

A record is a copy: what was decided after it was made, it can't know, and nobody can tell from it alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ifas.core.errors import DataError, GateError
from ifas.core.files import read_json
from ifas.promotion.audit import approvers, history
from ifas.promotion.candidate import Candidate, Entry
from ifas.promotion.gates import signer_of
from ifas.promotion.products import Product, in_force, link, registered_by
from ifas.promotion.statements import public_pem_of


class Record(BaseModel):
    """What a record proves.

    `registration`: the product's that counted for the last decision, and since when. `gate`: the one of that
    registration's gates that has signed its result; empty: none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: str
    product: str
    state: str
    ledger: str
    registration: int
    registered: str
    gate: str
    approved_by: list[str]
    by_policy: bool
    evidence: dict[str, str]

    @property
    def summary(self) -> str:
        """One line for people."""
        by = ", ".join(self.approved_by) or ("its policy, which signs nothing" if self.by_policy else "nobody")
        return (
            f"candidate {self.candidate} of product {self.product} is {self.state}; approved by {by}, "
            f"by registration {self.registration} of {self.registered[:10]}; its result is signed by "
            f"{f'gate {self.gate}' if self.gate else 'no gate'}; what came later is not known here"
        )


def verify_record(file: Path, admin: Path) -> Record:
    """What the JSON of `ifas show` proves to who has the administrator's public key.

    Raises:
        GateError: the product is not registered by this administrator, or a decision is not what its reviewers signed.
        DataError: no such record.
        ConfigError: no such key.
    """
    key = public_pem_of(admin)
    try:
        found: dict[str, Any] = dict(read_json(file))
        entries = [Entry(**one) for one in found.pop("history")]
        products = [Product.model_validate(one) for one in found.pop("registrations")]
        candidate = Candidate(**found)
    except FileNotFoundError as error:
        raise DataError(f"there is no {file}", "make it: ifas show CANDIDATE > candidate.json") from error
    except (ValueError, TypeError, KeyError, ValidationError) as error:
        raise DataError(f"{file} is no record of a candidate: {error}", "make it: ifas show CANDIDATE") from error
    for product in products:
        sound = product.name == candidate.product and product.hash == link(product.model_dump())
        if not sound or not registered_by(product, key):
            raise GateError(
                f"registration {product.seq} of product {product.name} is not signed by the key in {admin}",
                "get the administrator's key, and a record of its ledger",
            )
    if not products:
        raise GateError(f"product {candidate.product} is not registered, so nothing proves who decided", "register it")
    wrong = "it has no decisions" if not entries else history(candidate, entries, products)
    if wrong:
        raise GateError(f"{file}: {wrong}", "trust nothing of it; ask for a new copy")
    now = in_force(products, candidate.product, entries[-1].seq, entries[-1].at)
    return Record(
        candidate=candidate.id,
        product=candidate.product,
        state=candidate.state,
        ledger=(now.ledger or "") if now else "",
        registration=now.seq if now else 0,
        registered=now.at if now else "",
        gate=signer_of(now, candidate, entries) if now else "",
        approved_by=approvers(now, candidate, entries) if now else [],
        by_policy=any(entry.to_state == "approved" and entry.statement is None for entry in entries),
        evidence=candidate.evidence,
    )
