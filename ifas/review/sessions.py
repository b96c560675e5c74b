"""Sessions and the tokens of forms.

A cookie holds a random name, signed. Whose it is and until when is in the database, so that signing out, or disabling
an account, ends it. The token of a form is made from the cookie, so that a page of others can't send one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from itsdangerous import BadSignature, URLSafeSerializer
from sqlalchemy import delete

from ifas.database.connection import Database
from ifas.review.tables import SessionRow


@dataclass(frozen=True)
class Visit:
    """What a request's cookie says: a random name, and the account that is signed in; empty: nobody is."""

    name: str
    account: str = ""


class Sessions:
    """Makes and reads cookies.

    Args:
        key: of their signatures; another one ends all sessions.
        hours: how long one lasts.
    """

    def __init__(self, database: Database, key: bytes, hours: float) -> None:
        self._database = database
        self._key = key
        self._lasts = timedelta(hours=hours)
        self._signer = URLSafeSerializer(
            key, salt="ifas review session", signer_kwargs={"digest_method": hashlib.sha256}
        )

    def fresh(self) -> Visit:
        """A visit of somebody who is not signed in."""
        return Visit(secrets.token_urlsafe(32))

    def begin(self, account: str) -> Visit:
        """Somebody has signed in. Always under a new name: one that was known before is worth nothing now."""
        visit, now = Visit(secrets.token_urlsafe(32), account), datetime.now(UTC)
        with self._database.writing() as session:
            session.execute(delete(SessionRow).where(SessionRow.ends < now.isoformat()))
            session.add(SessionRow(id=_kept(visit.name), account=account, ends=(now + self._lasts).isoformat()))
        return visit

    def end(self, visit: Visit) -> None:
        """Somebody has signed out."""
        with self._database.writing() as session:
            session.execute(delete(SessionRow).where(SessionRow.id == _kept(visit.name)))

    def cookie(self, visit: Visit) -> str:
        """The value of the cookie."""
        return str(self._signer.dumps(visit.name))

    def read(self, cookie: str) -> Visit | None:
        """The visit of a cookie; None where we did not sign it. A session that ended is a visit of nobody."""
        try:
            name = self._signer.loads(cookie)
        except BadSignature:
            return None
        if not isinstance(name, str):
            return None
        with self._database.reading() as session:
            row = session.get(SessionRow, _kept(name))
            if row is None or row.ends < datetime.now(UTC).isoformat():
                return Visit(name)
            return Visit(name, row.account)

    def token(self, visit: Visit, account: str) -> str:
        """What the forms of this visit carry."""
        said = f"form\0{visit.name}\0{account}".encode()
        return hmac.new(self._key, said, hashlib.sha256).hexdigest()

    def is_token(self, given: str, visit: Visit, account: str) -> bool:
        """Whether a form came from a page of this visit."""
        return hmac.compare_digest(given.encode(), self.token(visit, account).encode())


def _kept(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
