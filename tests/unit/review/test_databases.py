"""What the page keeps, on each database that is supported, really started."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from sqlalchemy import text

from ifas.core.errors import ConfigError
from ifas.database.connection import Database
from ifas.review import comments
from ifas.review.accounts import Accounts
from ifas.review.sessions import Sessions, Visit
from ifas.review.tables import REVIEW
from tests.servers_pg import postgres_server

PASSWORD = "correct horse battery"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_accounts_sessions_and_comments(kind: str, tmp_path: Path) -> None:
    if kind == "sqlite":
        kept(f"sqlite:///{tmp_path / 'review.db'}")
        return
    with postgres_server() as server:
        kept(server.fresh(f"review_{uuid.uuid4().hex[:8]}"))


def kept(url: str) -> None:
    database = Database(url, REVIEW)
    accounts = Accounts(database)
    accounts.add("ann", "another password", "viewer", "root")
    accounts.add("ann", PASSWORD, "reviewer", "root")
    assert [(one.name, one.role) for one in accounts.list()] == [("ann", "reviewer")]
    assert accounts.proven("ann", "another password") is None
    assert accounts.proven("ann", PASSWORD).role == "reviewer"

    sessions = Sessions(database, b"k" * 32, 1)
    visit = sessions.begin("ann")
    assert sessions.read(sessions.cookie(visit)) == visit
    sessions.end(visit)
    assert sessions.read(sessions.cookie(visit)) == Visit(visit.name)

    comments.add(database, "0123456789ab", "ann", "é ✓ <b>")
    for statement in ("UPDATE review_comments SET text = 'x'", "DELETE FROM review_comments"):
        with pytest.raises(ConfigError, match="append-only"), database.writing() as session:
            session.execute(text(statement))
    assert [one.text for one in comments.of(database, "0123456789ab")] == ["é ✓ <b>"]
    accounts.disable("ann")
    assert accounts.get("ann") is None
    assert accounts.proven("ann", PASSWORD) is None
    database.close()
    Database(url, REVIEW).close()  # the tables are there
