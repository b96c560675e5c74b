"""Looks at every raw image once: hash of its bytes, size, perceptual hash, or why it is refused."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ifas.core.errors import ImageRefused
from ifas.core.imaging import ImageLimits, decode
from ifas.data.phash import phash
from ifas.data.readers import RawSample, Refusal


@dataclass(frozen=True)
class Inspected:
    """A raw sample whose image is whole. Width and height are those of the decoded image, orientation applied."""

    sample: RawSample
    sample_id: str
    width: int
    height: int
    phash: str


def inspect(samples: Iterable[RawSample], limits: ImageLimits, workers: int) -> Iterator[Inspected | Refusal]:
    """One answer per sample, in the order of `samples`, whatever the number of workers.

    Threads, since reading, hashing and decoding release the interpreter lock. Only a few images are in memory at once.
    """
    pending: deque[Future[Inspected | Refusal]] = deque()
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        try:
            for sample in samples:
                pending.append(pool.submit(_look, sample, limits))
                if len(pending) > 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _look(sample: RawSample, limits: ImageLimits) -> Inspected | Refusal:
    try:
        data = read_limited(sample.path, limits)
        pixels = decode(data, limits)
    except ImageRefused as error:
        return Refusal(sample.source, error.what)
    except OSError as error:
        return Refusal(sample.source, f"can't be read: {error.strerror or error}")
    height, width = pixels.shape[:2]
    return Inspected(sample, hashlib.sha256(data).hexdigest(), width, height, phash(pixels))


def read_limited(path: Path, limits: ImageLimits) -> bytes:
    """A file's bytes; ImageRefused before reading when it is larger than an image may be."""
    size = path.stat().st_size
    if size > limits.max_bytes:
        raise ImageRefused(f"image has {size} bytes, the limit is {limits.max_bytes}")
    return path.read_bytes()
