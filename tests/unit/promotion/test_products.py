"""Products on real SQLite and real PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from ifas.core.errors import DataError, GateError
from ifas.promotion.ledger import Ledger
from ifas.promotion.people import People
from ifas.promotion.policy import load_policy
from ifas.promotion.products import Products

#: Of any key: nobody decides here.
KEY = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
PEOPLE = People(reviewers={"ann": [KEY]})
STRICT, DEMO = load_policy("builtin:strict"), load_policy("builtin:demo")


@pytest.fixture
def products(url: str) -> Iterator[Products]:
    opened = Products(url)
    yield opened
    opened.close()


def execute(url: str, *statements: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def test_the_newest_registration_counts_and_the_older_ones_stay(products: Products) -> None:
    assert products.get("door") is None
    first = products.register("door", DEMO, by_policy=True, actor="admin", reason=" to begin with ")
    products.register("gate", DEMO, by_policy=True, actor="admin", reason="another product")
    assert products.register("door", DEMO, by_policy=True, actor="eve", reason="again") == first
    changed = products.register("door", STRICT, by_policy=True, actor="admin", reason="a real door")
    people = products.register(
        "door", STRICT, by_policy=False, people=PEOPLE, actor="admin", reason="and people look at it"
    )
    assert products.get("door") == people
    assert people.parsed_policy == STRICT
    assert [one.reason for one in products.entries()] == [
        *("to begin with", "another product", "a real door", "and people look at it")
    ]
    assert changed.previous == products.entries()[1].hash


@pytest.mark.parametrize("lacking", ["name", "actor", "reason"])
def test_nothing_is_registered_by_nobody_for_no_reason(products: Products, lacking: str) -> None:
    given = {"name": "door", "actor": "admin", "reason": "good", lacking: "  "}
    with pytest.raises(GateError, match=f"no {lacking}"):
        products.register(
            given["name"], DEMO, by_policy=False, people=PEOPLE, actor=given["actor"], reason=given["reason"]
        )
    assert products.entries() == []


@pytest.mark.parametrize("statement", ["UPDATE products SET by_policy = NOT by_policy", "DELETE FROM products"])
def test_products_are_append_only(products: Products, url: str, statement: str) -> None:
    products.register("door", STRICT, by_policy=False, people=PEOPLE, actor="admin", reason="good")
    with pytest.raises(DBAPIError, match="append-only"):
        execute(url, statement)


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE products SET by_policy = NOT by_policy WHERE seq = 1",
        "UPDATE products SET policy = '{}' WHERE seq = 2",
        "UPDATE products SET name = 'window' WHERE seq = 2",
        "DELETE FROM products WHERE seq = 1",
    ],
)
def test_tampering_is_found(products: Products, url: str, tampering: str) -> None:
    products.register("door", STRICT, by_policy=False, people=PEOPLE, actor="admin", reason="good")
    products.register("door", DEMO, by_policy=False, people=PEOPLE, actor="admin", reason="bad")
    names = ("products_no_update", "products_no_delete")
    drop = [f"DROP TRIGGER {name}" for name in names] if url.startswith("sqlite") else []
    execute(url, *(drop or ["DROP TRIGGER products_append_only ON products"]), tampering)
    for ask in (products.entries, lambda: products.get("door")):
        with pytest.raises(DataError, match="was altered"):
            ask()
    with pytest.raises(DataError, match="was altered"):
        products.register("door", STRICT, by_policy=True, actor="eve", reason="so that nobody sees it")


def test_a_ledger_of_before_there_were_products(url: str) -> None:
    Ledger(url).close()
    execute(url, "DROP TABLE products")
    reader = Products(url, make=False)
    assert reader.entries() == []
    reader.close()
    writer = Products(url)
    writer.register("door", STRICT, by_policy=False, people=PEOPLE, actor="admin", reason="good")
    with pytest.raises(DBAPIError, match="append-only"):
        execute(url, "DELETE FROM products")
    writer.close()


def test_registrations_at_once_lose_nothing(url: str) -> None:
    start = threading.Barrier(8)

    def act(number: int) -> None:
        own = Products(url)
        start.wait()
        own.register(f"door {number % 4}", STRICT, by_policy=False, people=PEOPLE, actor="admin", reason="good")
        own.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(act, range(8)))
    reader = Products(url)
    assert sorted(one.name for one in reader.entries()) == [f"door {number}" for number in range(4)]
    reader.close()
