"""Looks at the file of every still image once: hash of its bytes, size by its header, or why it is refused.

Nothing is decoded here: that would cost ten times what reading and hashing cost, and the `validate` step, which looks
at every picture, does it anyway (`ifas.core.look`).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from ifas.core.errors import ImageRefused
from ifas.core.imaging import ImageLimits, header
from ifas.data.media import Room, Still, stills
from ifas.data.readers import RawSample, Refusal
from ifas.data.video.plan import FramePlan

#: Image files that a worker deals with at a time: handing over one by one costs more than hashing it.
CHUNK = 16
#: Bytes of these files that are read into memory used before; what is larger takes its own.
ROOM = CHUNK * 2**17


class Inspected(NamedTuple):
    """An image that is whole. Width and height are those of the decoded image, orientation applied.

    `data` may only be looked at until the next sample is asked for.
    """

    sample: RawSample
    data: bytes | memoryview
    sample_id: str
    width: int
    height: int


def inspect(
    samples: Iterable[RawSample], limits: ImageLimits, frames: FramePlan, workers: int
) -> Iterator[list[Inspected | Refusal]]:
    """What became of each sample, in the order of `samples`, whatever the number of workers.

    Threads, since reading and hashing release the interpreter lock. Only a few chunks are in memory at once.
    """
    pending: deque[tuple[Room, Future[list[list[Inspected | Refusal]]]]] = deque()
    free: list[Room] = []

    def finish() -> Iterator[list[Inspected | Refusal]]:
        room, future = pending.popleft()
        yield from future.result()
        room.clear()
        free.append(room)

    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        try:
            for chunk in _chunks(samples):
                room = free.pop() if free else Room(ROOM)
                pending.append((room, pool.submit(_look, chunk, limits, frames, room)))
                if len(pending) > 2 * workers:
                    yield from finish()
            while pending:
                yield from finish()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _chunks(samples: Iterable[RawSample]) -> Iterator[list[RawSample]]:
    """Image files by CHUNK; a medium of many frames is a chunk of its own."""
    chunk: list[RawSample] = []
    for sample in samples:
        if sample.container != "image" and chunk:
            yield chunk
            chunk = []
        chunk.append(sample)
        if sample.container != "image" or len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _look(
    samples: list[RawSample], limits: ImageLimits, frames: FramePlan, room: Room
) -> list[list[Inspected | Refusal]]:
    return [
        [
            found._replace(pai_species=sample.pai_species, domain=sample.domain)
            if isinstance(found, Refusal)
            else _inspected(found, limits)
            for found in stills(sample, limits, frames, room)
        ]
        for sample in samples
    ]


def _inspected(still: Still, limits: ImageLimits) -> Inspected | Refusal:
    try:
        width, height = header(still.data, limits)
    except ImageRefused as error:
        sample = still.sample
        return Refusal(sample.source, error.what, "decode", sample.pai_species, sample.domain)
    return Inspected(still.sample, still.data, hashlib.sha256(still.data).hexdigest(), width, height)
