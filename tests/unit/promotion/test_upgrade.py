"""A ledger that an older version made: opened by this one, nothing is lost and nothing has changed."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

from ifas.promotion.ledger import Ledger
from ifas.promotion.products import Products, link
from ifas.promotion.tables import append_only
from tests.unit.promotion.test_approval import POLICY, submit

#: What today's tables have and those of 0.1.0 as of November 2026 lacked.
ADDED = {"decisions": ["statement"], "products": ["ledger", "people", "follows", "statement"]}
OLD_STATES = "('pending', 'refused', 'approved', 'rejected')"


def aged(url: str, product: Mapping[str, Any]) -> None:
    """Takes from a ledger what an older version did not make."""
    engine = create_engine(url)
    sqlite = url.startswith("sqlite")
    name, drop = ("products_no_update", "") if sqlite else ("products_append_only", " ON products")
    with engine.begin() as connection:
        connection.execute(text(f"DROP TRIGGER {name}{drop}"))
        connection.execute(
            text("UPDATE products SET hash = :hash"), {"hash": link({**product, "follows": None, "ledger": None})}
        )
        for statement in append_only("products", engine.dialect.name):
            if name in statement and "FUNCTION products_append_only() RETURNS" not in statement:
                connection.exec_driver_sql(statement)
        for table, columns in ADDED.items():
            for column in columns:
                connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        if sqlite:
            made = connection.scalar(text("SELECT sql FROM sqlite_master WHERE name = 'candidates'"))
            start, end = made.index("(state IN ") + len("(state IN "), made.index("))", made.index("(state IN ")) + 1
            connection.execute(text("PRAGMA writable_schema = ON"))
            connection.execute(
                text("UPDATE sqlite_master SET sql = :sql WHERE name = 'candidates'"),
                {"sql": made[:start] + OLD_STATES + made[end:]},
            )
            connection.execute(text("PRAGMA writable_schema = OFF"))
        else:
            connection.execute(text("ALTER TABLE candidates DROP CONSTRAINT candidates_state"))
            connection.execute(
                text(f"ALTER TABLE candidates ADD CONSTRAINT candidates_state CHECK (state IN {OLD_STATES})")
            )
    engine.dispose()
    with pytest.raises(DBAPIError, match="candidates_state"), create_engine(url).begin() as connection:
        connection.execute(text("UPDATE candidates SET state = 'revoked'"))


def test_an_older_ledger_goes_on(url: str) -> None:
    old, products = Ledger(url), Products(url)
    made = products.register("door", POLICY, by_policy=True, actor="admin", reason="as it was")
    first = submit(old, "first", 0.8)
    old.approve(first.id, actor="ann", reason="good")
    head, known = old.verify(), old.checked(first.id)
    old.close()
    products.close()
    aged(url, made.model_dump())

    def opened(_: int) -> str:
        ledger = Ledger(url)
        try:
            return ledger.verify()
        finally:
            ledger.close()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(opened, range(4))) == {head}, "nothing of the chain has changed, whoever came first"
    ledger = Ledger(url)
    assert ledger.checked(first.id) == known
    assert ledger.product("door") is not None
    second = submit(ledger, "second", 0.9, first)
    ledger.approve(second.id, actor="ann", reason="better")
    assert ledger.get(first.id).state == "superseded"
    assert ledger.revoke(second.id, actor="ann", reason="lets masks in").state == "revoked"
    assert ledger.get(first.id).state == "approved"
    ledger.verify()
    ledger.close()
    engine = create_engine(url)
    assert {index["name"] for index in inspect(engine).get_indexes("candidates")} >= {"ix_candidates_product"}
    with pytest.raises(DBAPIError, match="candidates_state"), engine.begin() as connection:
        connection.execute(text("UPDATE candidates SET state = 'blessed'"))
    with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(text("DELETE FROM decisions"))
    engine.dispose()
