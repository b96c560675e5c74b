"""Prefetching changes when items are made, not which items."""

import threading
import time

import pytest

from ifas.core.prefetch import prefetch


def test_items_keep_their_order() -> None:
    assert list(prefetch(iter(range(100)))) == list(range(100))
    assert list(prefetch([])) == []
    assert list(prefetch([None, None])) == [None, None]


def test_the_next_item_is_made_while_this_one_is_used() -> None:
    made = [threading.Event() for _ in range(3)]

    def items():
        for n, event in enumerate(made):
            event.set()
            yield n

    read = prefetch(items())
    assert next(read) == 0
    assert made[1].wait(timeout=10), "made although only the first was asked for"
    time.sleep(0.05)
    assert not made[2].is_set(), "one ahead, not more"
    read.close()


def test_an_error_comes_in_its_place() -> None:
    def items():
        yield 1
        raise KeyError("second")

    read = prefetch(items())
    assert next(read) == 1
    with pytest.raises(KeyError, match="second"):
        next(read)
