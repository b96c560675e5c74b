"""Prefetching: the next item is made in a thread while the caller works on this one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterable[Item]) -> Iterator[Item]:
    """The same items in the same order, each made one ahead of its use.

    Useful where making an item releases the interpreter lock (reading, decoding). An exception is raised in place of
    the item that caused it. One thread makes all items, so `items` needs no lock; the caller must not read state that
    `items` changes before the last item is out.
    """
    source = iter(items)
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        coming = pool.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, source, end)
            yield item  # type: ignore[misc]
