"""Prefetching: the next item is made in a thread while the caller works on this one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterable[Item]) -> Iterator[Item]:
    """The same items in the same order, each made one ahead of its use.

    Worth it where making an item leaves the interpreter free (reading, decoding). What making one raises comes out in
    its place. One thread makes all of them, so `items` needs no lock; it must not share state with the caller that the
    caller reads before the end.
    """
    source = iter(items)
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        coming = pool.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, source, end)
            yield item  # type: ignore[misc]
