"""Products: what a model is for, the policy that it must pass, and who approves it; registered in the ledger.

A run names a product, and can't choose another policy for it. Each registration is an entry of its own, chained to the
one before like decisions are; the newest of a product counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from ifas.core.errors import DataError, GateError
from ifas.core.files import sha256_json
from ifas.database.connection import Database
from ifas.promotion.policy import Policy
from ifas.promotion.tables import LEDGER, ProductRow
from ifas.promotion.witness import Head, Look, Witness

#: Name of the chain of registrations.
CHAIN = "products"


class Product(BaseModel):
    """One registration. `by_policy`: a candidate that passes is approved without a person."""

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)

    seq: int
    name: str
    policy: dict[str, Any]
    by_policy: bool
    actor: str
    reason: str
    at: str
    previous: str
    hash: str

    @property
    def parsed_policy(self) -> Policy:
        """The policy; `policy` stays as it was registered, since the hash covers it."""
        return Policy.model_validate(self.policy)


class Products:
    """The products of a ledger.

    Args:
        url, witness: of the ledger; see `Ledger`.
        make: whether tables that are not there are made.

    Raises:
        ConfigError: not a usable URL, or the database can't be reached.
    """

    def __init__(self, url: str, witness: str = "", *, make: bool = True) -> None:
        self._database = Database(url, LEDGER, make=make)
        self._witness = Witness(witness) if witness else None

    def close(self) -> None:
        """Closes the connections."""
        self._database.close()

    def register(self, name: str, policy: Policy, *, by_policy: bool, actor: str, reason: str) -> Product:
        """Registers a product, or changes it. The same policy and approval again change nothing.

        Raises:
            GateError: no name, actor or reason is given.
            DataError: the products were altered outside of ifas.
        """
        for what, value in (("name", name), ("actor", actor), ("reason", reason)):
            if not value.strip():
                raise GateError(f"no {what} given", f"give a {what}")
        with self._database.writing() as session:
            entries = chained(self._database, session)
            last = newest(entries, name)
            if last is not None and (last.parsed_policy.sha256, last.by_policy) == (policy.sha256, by_policy):
                return last
            fields = {
                "seq": len(entries) + 1,
                "name": name,
                "policy": policy.model_dump(mode="json"),
                "by_policy": by_policy,
                "actor": actor.strip(),
                "reason": reason.strip(),
                "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "previous": entries[-1].hash if entries else "",
            }
            row = ProductRow(**fields, hash=_link(fields))
            session.add(row)
            session.flush()
            made = Product.model_validate(row)
        if self._witness:
            self._witness.keep_made(_head(made))
        return made

    def entries(self) -> Sequence[Product]:
        """Every registration, oldest first. Raises DataError where they were altered outside of ifas."""
        return registered(self._database, self._witness)

    def get(self, name: str) -> Product | None:
        """The newest registration of a product, or None. Raises as `entries`."""
        return newest(self.entries(), name)

    def without_head(self) -> Sequence[Head]:
        """As `Ledger.without_head`, of the registrations."""
        return self._witness.missing(CHAIN, _look(self._database), self._database.shown) if self._witness else []


def registered(database: Database, witness: Witness | None) -> Sequence[Product]:
    """Every registration of a ledger, oldest first.

    Raises:
        DataError: their chain is broken, or is not what the witness has kept.
    """
    look = _look(database)
    return witness.check(CHAIN, look, database.shown) if witness else look()[0]


def newest(entries: Sequence[Product], name: str) -> Product | None:
    """The registration of a product that counts, or None."""
    return next((one for one in reversed(entries) if one.name == name), None)


def chained(database: Database, session: Session) -> Sequence[Product]:
    """Every registration of an open ledger, oldest first. Raises DataError where their chain is broken."""
    if not database.has(ProductRow.__tablename__, session):
        return []
    entries = [Product.model_validate(row) for row in session.scalars(select(ProductRow).order_by(ProductRow.seq))]
    head = ""
    for position, entry in enumerate(entries, start=1):
        if (entry.seq, entry.previous, entry.hash) != (position, head, _link(entry.model_dump())):
            raise DataError(
                f"ledger {database.shown} was altered at entry {entry.seq} of its products, {entry.name!r}",
                "restore it from a backup; train and approve nothing from it until then",
            )
        head = entry.hash
    return entries


def _look(database: Database) -> Look[Sequence[Product]]:
    def look() -> tuple[Sequence[Product], Sequence[Head]]:
        with database.reading() as session:
            entries = chained(database, session)
        return entries, [_head(one) for one in entries]

    return look


def _head(entry: Product) -> Head:
    about = f"{entry.actor}: {entry.name} has the policy {entry.parsed_policy.name}"
    return Head(chain=CHAIN, seq=entry.seq, hash=entry.hash, about=about)


def _link(entry: Mapping[str, Any]) -> str:
    return sha256_json({name: entry[name] for name in Product.model_fields if name != "hash"})
