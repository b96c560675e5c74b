"""Local accounts: a name, an argon2 hash and a role. For one machine; teams come through a proxy (`signed_in`)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import select

from ifas.core.errors import ConfigError, unknown_key
from ifas.database.connection import Database
from ifas.review.tables import AccountRow

#: Each may do all that those before it may.
ROLES = ("viewer", "reviewer", "admin")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
SHORTEST = 12
LONGEST = 1000
#: Passwords checked at once: each takes 64 MiB, which nobody without an account may use up.
AT_ONCE = 2


@dataclass(frozen=True)
class Account:
    """Somebody who is signed in, or an account as the list shows it."""

    name: str
    role: str
    disabled: bool = False
    made_by: str = ""
    at: str = ""

    def at_least(self, role: str) -> bool:
        """Whether this account may do what `role` may."""
        return not self.disabled and ROLES.index(self.role) >= ROLES.index(role)


class Accounts:
    """The accounts in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hasher = PasswordHasher()
        self._turn = BoundedSemaphore(AT_ONCE)
        self._nobody = _nobody()

    def add(self, name: str, password: str, role: str, made_by: str) -> Account:
        """Makes an account, or gives one that is there another password and role, and enables it again.

        Raises:
            ConfigError: a name, password or role that can't be used.
        """
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} can't be the name of an account",
                "use up to 64 of the characters a-z, A-Z, 0-9, dot, hyphen, underscore and @",
            )
        if role not in ROLES:
            raise unknown_key("role", role, ROLES)
        if not SHORTEST <= len(password) <= LONGEST:
            raise ConfigError(
                f"the password of {name} has {len(password)} characters", f"give {SHORTEST} to {LONGEST} of them"
            )
        at = datetime.now(UTC).isoformat(timespec="seconds")
        with self._turn:
            hashed = self._hasher.hash(password)
        with self._database.writing() as session:
            session.merge(AccountRow(name=name, password=hashed, role=role, disabled=False, made_by=made_by, at=at))
        return Account(name, role, made_by=made_by, at=at)

    def disable(self, name: str) -> None:
        """Nobody signs in by this account any more; its sessions end at once. Raises ConfigError for an unknown one."""
        with self._database.writing() as session:
            row = session.get(AccountRow, name)
            if row is None:
                raise ConfigError(f"there is no account {name!r}", "`ifas review account list` lists them")
            row.disabled = True

    def list(self) -> Sequence[Account]:
        """Every account, by name."""
        with self._database.reading() as session:
            return [_account(row) for row in session.scalars(select(AccountRow).order_by(AccountRow.name))]

    def get(self, name: str) -> Account | None:
        """An account that may be used, or None."""
        with self._database.reading() as session:
            row = session.get(AccountRow, name)
            return None if row is None or row.disabled else _account(row)

    def proven(self, name: str, password: str) -> Account | None:
        """The account, if this is its password and it is not disabled. Takes as long for a name that is not there."""
        with self._database.reading() as session:
            row = session.get(AccountRow, name)
            account, hashed = (None, "") if row is None else (_account(row), row.password)
        try:
            with self._turn:
                self._hasher.verify(hashed or self._nobody, password[:LONGEST])
        except (VerificationError, InvalidHashError):
            return None
        return None if account is None or account.disabled else account


@cache
def _nobody() -> str:
    """A hash to check where there is no such account, so that the answer takes as long. No password has it."""
    return PasswordHasher().hash(secrets.token_hex(32))


def _account(row: AccountRow) -> Account:
    return Account(row.name, row.role, row.disabled, row.made_by, row.at)
