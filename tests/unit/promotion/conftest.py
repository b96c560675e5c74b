"""Ledgers on the databases that are supported, each really started."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ifas.promotion.ledger import Ledger
from tests.servers_pg import Postgres, postgres_server
from tests.unit.promotion.reviewers import Keys


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty ledger database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'folder' / 'ledger.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.fresh(f"ledger_{uuid.uuid4().hex[:8]}")


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger(url)
    yield opened
    opened.close()


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)
