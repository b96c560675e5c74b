"""Looks at every still image once: hash of its bytes, size, perceptual hash, or why it is refused."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ifas.core.errors import ImageRefused
from ifas.core.imaging import ImageLimits, glance
from ifas.data.media import Still, stills
from ifas.data.phash import phash
from ifas.data.readers import RawSample, Refusal
from ifas.data.video.plan import FramePlan


@dataclass(frozen=True)
class Inspected:
    """An image that is whole. Width and height are those of the decoded image, orientation applied."""

    sample: RawSample
    data: bytes
    sample_id: str
    width: int
    height: int
    phash: str


def inspect(
    samples: Iterable[RawSample], limits: ImageLimits, frames: FramePlan, workers: int
) -> Iterator[list[Inspected | Refusal]]:
    """What became of each sample, in the order of `samples`, whatever the number of workers.

    Threads, since reading, hashing and decoding release the interpreter lock. Only a few media are in memory at once.
    """
    pending: deque[Future[list[Inspected | Refusal]]] = deque()
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        try:
            for sample in samples:
                pending.append(pool.submit(_look, sample, limits, frames))
                if len(pending) > 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _look(sample: RawSample, limits: ImageLimits, frames: FramePlan) -> list[Inspected | Refusal]:
    return [
        found._replace(pai_species=sample.pai_species, domain=sample.domain)
        if isinstance(found, Refusal)
        else _inspected(found, limits)
        for found in stills(sample, limits, frames)
    ]


def _inspected(still: Still, limits: ImageLimits) -> Inspected | Refusal:
    try:
        grey, width, height = glance(still.data, limits)
    except ImageRefused as error:
        sample = still.sample
        return Refusal(sample.source, error.what, "decode", sample.pai_species, sample.domain)
    return Inspected(still.sample, still.data, hashlib.sha256(still.data).hexdigest(), width, height, phash(grey))
