"""The outbox on real SQLite and PostgreSQL: what is left to send, by several processes, and that rows only come."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

from ifas.promotion.outbox import Outbox
from tests.unit.promotion.test_ledger import submit


def entries(ledger):
    return [entry for _, entry in ledger.decisions()]


@pytest.fixture
def outbox(ledger, url):
    opened = Outbox(url)
    yield opened
    opened.close()


def test_what_was_decided_before_is_left_out_unless_asked_for(ledger, outbox):
    submit(ledger, "old")
    outbox.switch_on()
    outbox.switch_on()
    submit(ledger, "new")
    old, new = entries(ledger)
    assert outbox.left([old, new]) == [new]
    assert outbox.left([old, new], before=True) == [old, new]


def test_of_an_empty_ledger_all_is_sent(ledger, outbox):
    assert outbox.left(entries(ledger)) == []
    outbox.switch_on()
    submit(ledger)
    assert outbox.left(entries(ledger)) == entries(ledger)


def test_marks(ledger, outbox):
    outbox.switch_on()
    submit(ledger, "a")
    submit(ledger, "b")
    first, second = entries(ledger)
    outbox.mark(first, "refused")
    assert outbox.left([first, second]) == [second]
    assert outbox.left([first, second], refused=True) == [first, second]
    for _ in range(2):
        outbox.mark(first, "sent")
    assert outbox.left([first, second], refused=True, before=True) == [second]


def test_many_at_once(ledger, outbox, url):
    submit(ledger)
    (entry,) = entries(ledger)

    def work(_):
        mine = Outbox(url)
        mine.switch_on()
        mine.mark(entry, "sent")
        mine.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    with create_engine(url.replace("postgresql://", "postgresql+psycopg://")).connect() as connection:
        assert sorted(connection.scalars(text("SELECT mark FROM announced"))) == ["on", "sent"]


@pytest.mark.parametrize("change", ["UPDATE announced SET mark = 'sent'", "DELETE FROM announced"])
def test_rows_are_only_added(ledger, outbox, url, change):
    outbox.switch_on()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(text(change))


def test_a_ledger_without_events_has_no_such_table(ledger, url):
    submit(ledger)
    looked = Outbox(url, make=False)
    assert looked.left(entries(ledger)) == []
    assert looked.left(entries(ledger), before=True) == entries(ledger)
    looked.close()
    assert not inspect(create_engine(url.replace("postgresql://", "postgresql+psycopg://"))).has_table("announced")
    assert ledger.verify()
