"""Products: what a model is for, the policy that it must pass, and who approves it; registered in the ledger.

A run names a product, and can't choose another policy for it. Each registration is an entry of its own, chained to the
one before like decisions are; the newest of a product counts. Where the administrator's public key is known
(`gate.admin_key`), a registration that this key has not signed counts for nothing: it is found as an alteration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from ifas.core.config import first_problem
from ifas.core.errors import DataError, GateError, IfasError
from ifas.core.files import sha256_json
from ifas.database.connection import Database
from ifas.promotion import statements
from ifas.promotion.clock import after
from ifas.promotion.people import Name, People
from ifas.promotion.policy import Policy
from ifas.promotion.tables import DecisionRow, ProductRow
from ifas.promotion.upgrade import LEDGER
from ifas.promotion.witness import Head, Look, Witness

#: Name of the chain of registrations.
CHAIN = "products"
#: What an administrator's statement says.
REGISTRATION = "https://ifas.dev/attestations/product/v1"
#: Fields that entries of older versions lack; where they are empty, a hash does not cover them.
ADDED = ("ledger", "people", "follows", "gates")


class Product(BaseModel):
    """One registration.

    `ledger`: id of the ledger, drawn at its first registration. `by_policy`: a candidate that passes is approved
    without a person. `people`: who else decides. `follows`: the decision that was the last one by then (`seq`, 0 for
    none, and `hash`): what comes after it counts by this registration, whatever time it bears. `gates`: name -> public
    keys (PEM) of the gates whose results count; None: any. `statement`: that the administrator registered just this, a
    DSSE envelope.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)

    seq: int
    name: str
    ledger: str | None = None
    policy: dict[str, Any]
    by_policy: bool
    people: dict[str, Any] | None = None
    follows: dict[str, Any] | None = None
    gates: dict[Name, list[str]] | None = None
    actor: str
    reason: str
    at: str
    statement: dict[str, Any] | None = None
    previous: str
    hash: str

    @property
    def parsed_people(self) -> People | None:
        """Who decides; None of a product that the policy alone decides about."""
        return None if self.people is None else People.model_validate(self.people)

    @property
    def parsed_policy(self) -> Policy:
        """The policy; `policy` stays as it was registered, since the hash covers it."""
        return Policy.model_validate(self.policy)


class Products:
    """The products of a ledger.

    Args:
        url, witness, admin, ledger: see `Ledger`.
        make: whether tables that are not there are made.

    Raises:
        ConfigError: not a usable URL, or the database can't be reached.
    """

    def __init__(
        self, url: str, witness: str | Witness = "", admin: Path | str = "", ledger: str = "", *, make: bool = True
    ) -> None:
        self._trust = Trust.of(admin, ledger)
        self._database = Database(url, LEDGER, make=make)
        self._witness = Witness.of(witness)

    def close(self) -> None:
        """Closes the connections."""
        self._database.close()

    def register(
        self,
        name: str,
        policy: Policy,
        *,
        by_policy: bool,
        actor: str,
        reason: str,
        people: People | None = None,
        gates: Mapping[str, Sequence[str]] | None = None,
        key: str = "",
    ) -> Product:
        """Registers a product, or changes it. The same policy, people and gates again change nothing.

        Args:
            by_policy: whether a candidate that passes may be approved without a person.
            people: who decides. Without them `by_policy` must be true: else nobody could approve anything.
            gates: name -> public keys (PEM) of the gates whose signed results count; none: a result needs no signature.
            key: reference of the administrator's private key; see `statements.signer`.

        Raises:
            GateError: no name, actor or reason is given, nobody could approve, or the key is not the administrator's.
            ConfigError: a gate has no key, or none that can be used.
            DataError: the products were altered outside of ifas.
        """
        for what, value in (("name", name), ("actor", actor), ("reason", reason)):
            if not value.strip():
                raise GateError(f"no {what} given", f"give a {what}")
        if people is None and not by_policy:
            raise GateError(
                f"nobody could approve a candidate of product {name}: an account name proves nothing",
                "name who may: --reviewer NAME=KEY.pub; or let the policy approve: --by-policy",
            )
        admin = self._trust.admin
        if admin and (not key or statements.raw(statements.public_pem(key)) != statements.raw(admin)):
            raise GateError(
                "products of this ledger are registered by its administrator", "give the administrator's key: --key"
            )
        asked = people.model_dump(mode="json") if people else None
        judges = {name: list(pems) for name, pems in gates.items()} if gates else None
        for pem in (pem for pems in (judges or {}).values() for pem in pems):
            statements.raw(pem)
        with self._database.writing() as session:
            entries = chained(self._database, session, self._trust)
            last = newest(entries, name)
            same = (policy.sha256, by_policy, asked, judges)
            # One that no administrator has signed yet, or that an older version made, is made anew.
            complete = last is not None and last.follows is not None and (last.statement is not None or not key)
            if last and complete and (last.parsed_policy.sha256, last.by_policy, last.people, last.gates) == same:
                return last
            ledger = next((one.ledger for one in entries if one.ledger), None) or self._trust.ledger or uuid4().hex
            fields = {
                "seq": len(entries) + 1,
                "name": name,
                "ledger": ledger,
                "policy": policy.model_dump(mode="json"),
                "by_policy": by_policy,
                "people": asked,
                "follows": last_decision(session),
                "gates": judges,
                "actor": actor.strip(),
                "reason": reason.strip(),
                "at": after(session),
                "previous": entries[-1].hash if entries else "",
            }
            sha256 = link(fields)
            told = ("name", "by_policy", "people", "gates", "follows", "actor", "reason", "at")
            said = {field: fields[field] for field in told}
            said["policy"] = policy.sha256
            signed = statements.signed({f"product/{name}": sha256}, REGISTRATION, said, key) if key else None
            row = ProductRow(**fields, statement=signed, hash=sha256)
            session.add(row)
            session.flush()
            made = Product.model_validate(row)
        if self._witness:
            self._witness.keep_made([_head(made)], lambda: _look(self._database, self._trust)()[1])
        return made

    def entries(self) -> Sequence[Product]:
        """Every registration, oldest first. Raises DataError where they were altered outside of ifas."""
        return registered(self._database, self._witness, self._trust)

    def get(self, name: str) -> Product | None:
        """The newest registration of a product, or None. Raises as `entries`."""
        return newest(self.entries(), name)

    def without_head(self) -> Sequence[Head]:
        """As `Ledger.without_head`, of the registrations."""
        return (
            self._witness.missing(CHAIN, _look(self._database, self._trust), self._database.shown)
            if self._witness
            else []
        )


@dataclass(frozen=True)
class Trust:
    """What is known about a ledger from elsewhere. `admin`: public key, PEM; `ledger`: its id; each may be empty."""

    admin: str = ""
    ledger: str = ""

    @classmethod
    def of(cls, admin: Path | str, ledger: str) -> Trust:
        """From a key that is PEM or a file of it. Raises ConfigError."""
        return cls(statements.public_pem_of(admin) if admin else "", ledger)


def registered(database: Database, witness: Witness | None, trust: Trust) -> Sequence[Product]:
    """Every registration of a ledger, oldest first.

    Raises:
        DataError: their chain is broken, is not what the witness has kept, or not what the administrator signed.
    """
    look = _look(database, trust)
    return witness.check(CHAIN, look, database.shown) if witness else look()[0]


def newest(entries: Sequence[Product], name: str) -> Product | None:
    """The registration of a product that counts, or None."""
    return next((one for one in reversed(entries) if one.name == name), None)


def in_force(entries: Sequence[Product], name: str, seq: int, at: str) -> Product | None:
    """The registration of a product that counted for a decision, or None.

    Args:
        seq, at: of the decision; its time is asked only where a registration does not say what it follows.
    """
    before = [one for one in entries if (one.follows["seq"] < seq if one.follows else one.at <= at)]
    return newest(before, name)


def last_decision(session: Session) -> dict[str, Any]:
    """Place and hash of the last decision by now; 0 and nothing where there is none."""
    last = session.scalars(select(DecisionRow).order_by(DecisionRow.seq.desc()).limit(1)).first()
    return {"seq": last.seq if last else 0, "hash": last.hash if last else ""}


def chained(database: Database, session: Session, trust: Trust) -> Sequence[Product]:
    """Every registration of an open ledger, oldest first.

    The administrator's first signature covers all registrations before it, by their hashes. After it, each one is
    signed.

    Raises:
        DataError: the chain or a signature is broken, or it is another ledger's.
    """
    if not database.has(ProductRow.__tablename__, session):
        return []
    rows = session.scalars(select(ProductRow).order_by(ProductRow.seq))
    try:
        entries = [Product.model_validate(row) for row in rows]
        for entry in entries:
            _ = entry.parsed_policy, entry.parsed_people
    except ValidationError as error:
        raise _altered(database, f"altered: a registration can't be read: {first_problem(error)}") from error
    head, signed = "", False
    for position, entry in enumerate(entries, start=1):
        where = f"at entry {entry.seq} of its products, {entry.name!r}"
        if (entry.seq, entry.previous, entry.hash) != (position, head, link(entry.model_dump())):
            raise _altered(database, f"altered {where}")
        by_admin = bool(trust.admin) and registered_by(entry, trust.admin)
        if trust.admin and not by_admin and (signed or entry.statement is not None):
            raise _altered(database, f"not signed by the administrator {where}")
        if trust.ledger and (entry.ledger or trust.ledger) != trust.ledger:
            raise _altered(database, f"of another ledger, {entry.ledger}, {where}")
        signed, head = signed or by_admin, entry.hash
    if len({entry.ledger for entry in entries if entry.ledger}) > 1:
        raise _altered(database, "altered: its products bear ids of several ledgers")
    return entries


def _altered(database: Database, what: str) -> DataError:
    return DataError(
        f"ledger {database.shown} was {what}", "restore it from a backup; train and approve nothing from it until then"
    )


def counts(product: Product | None, trust: Trust) -> bool:
    """Whether candidates of a product may be shipped: with an administrator, the registration is theirs."""
    return not trust.admin or (product is not None and registered_by(product, trust.admin))


def registered_by(entry: Product, admin: str) -> bool:
    """Whether the administrator has signed a registration."""
    try:
        said = statements.verified(entry.statement, REGISTRATION, [admin], entry.name)
        return bool(said["subject"] == [{"name": f"product/{entry.name}", "digest": {"sha256": entry.hash}}])
    except (IfasError, KeyError):
        return False


def _look(database: Database, trust: Trust) -> Look[Sequence[Product]]:
    def look() -> tuple[Sequence[Product], Sequence[Head]]:
        with database.reading() as session:
            entries = chained(database, session, trust)
        return entries, [_head(one) for one in entries]

    return look


def _head(entry: Product) -> Head:
    about = f"{entry.actor}: {entry.name} has the policy {entry.parsed_policy.name}"
    return Head(chain=CHAIN, seq=entry.seq, hash=entry.hash, about=about)


def link(entry: Mapping[str, Any]) -> str:
    """Hash of a registration; the statement is about this hash."""
    covered = {name: entry.get(name) for name in Product.model_fields if name not in ("hash", "statement")}
    return sha256_json({name: value for name, value in covered.items() if name not in ADDED or value is not None})
