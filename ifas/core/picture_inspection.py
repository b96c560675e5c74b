"""Inspects every image of a dataset once: its perceptual hash, or why it can't be decoded.

Packing reads headers only, so damage inside a file is found here. One bad image is a finding, never an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ifas.core.errors import CorruptShardError, DataError
from ifas.core.imaging import ImageLimits, glance
from ifas.core.manifest import ImageSource
from ifas.core.phash import phash
from ifas.core.progress import Progress

if TYPE_CHECKING:
    import pandas as pd


class Inspection(NamedTuple):
    """What one image gave: its perceptual hash (see `core.phash`), or null and a reason."""

    phash: str | None
    reason: str | None = None


def inspect_pictures(
    reads: Iterable[Callable[[], bytes]], *, workers: int = 2, limits: ImageLimits | None = None
) -> Iterator[Inspection]:
    """Inspects encoded images, in their order whatever the number of workers. Few images are in memory at once.

    Threads, since decoding releases the interpreter lock.

    Raises:
        CorruptShardError: a whole shard is damaged, not just one image in it.
    """
    pending: deque[Future[Inspection]] = deque()
    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            for read in reads:
                pending.append(pool.submit(_inspect, read, limits))
                if len(pending) > 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def inspect_rows(rows: pd.DataFrame, images: ImageSource, *, workers: int = 2, step: str = "") -> pd.DataFrame:
    """Inspects the images of a manifest: columns sample_id, phash and reason, one row each, in the same order.

    Args:
        rows: columns sample_id, shard, row.
        step: name under which progress is shown; empty: no progress.

    Raises:
        CorruptShardError: as `inspect_pictures`.
    """
    import pandas as pd

    progress = Progress(step, total=len(rows), unit="pictures") if step else None
    places = zip(rows["shard"], rows["row"], strict=True)
    found = []
    for one in inspect_pictures((partial(images.read, str(shard), int(row)) for shard, row in places), workers=workers):
        found.append(one)
        if progress:
            progress.advance()
    columns = {
        "phash": pd.Series([one.phash for one in found], dtype=object),
        "reason": pd.Series([one.reason for one in found], dtype=object),
    }
    return pd.DataFrame({"sample_id": rows["sample_id"].reset_index(drop=True), **columns})


def _inspect(read: Callable[[], bytes], limits: ImageLimits | None) -> Inspection:
    try:
        grey, _, _ = glance(read(), limits)
    except CorruptShardError:
        raise
    except DataError as error:
        return Inspection(None, error.what)
    return Inspection(phash(grey))
