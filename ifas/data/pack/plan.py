"""Cuts the samples of a raw dataset into pieces, each of which is packed on its own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from operator import attrgetter

from ifas.data.readers import RawSample

#: What a medium of many frames is taken to give, since only decoding would tell: a few frames, and minutes of work for
#: a piece of them. Where it gives more, its piece has several shards.
MEDIUM_BYTES = 2**20


@dataclass(frozen=True)
class Piece:
    """Samples of one domain, one behind the other in packing order."""

    number: int
    samples: tuple[RawSample, ...]


def in_order(samples: Iterable[RawSample]) -> list[RawSample]:
    """Packing order."""
    return sorted(samples, key=attrgetter("domain", "source"))


def plan(samples: list[RawSample], shard_bytes: int) -> tuple[list[Piece], str]:
    """Pieces whose files have about `shard_bytes` together, and a hash of what they are made of.

    The hash is over what the scan says and over size and time of every file: a changed dataset is not resumed.
    """
    digest = hashlib.sha256()
    said = attrgetter(*(field.name for field in fields(RawSample) if field.name != "path"))
    sizes = []
    for sample in samples:
        try:
            stat = os.stat(sample.path)
        except OSError:
            size, state = 0, None
        else:
            size, state = stat.st_size, (stat.st_size, stat.st_mtime_ns)
        sizes.append(size if sample.container == "image" else MEDIUM_BYTES)
        digest.update(f"{said(sample)!r} {state}\n".encode(errors="surrogateescape"))
    return list(_cut(samples, sizes, shard_bytes)), digest.hexdigest()


def _cut(samples: list[RawSample], sizes: list[int], shard_bytes: int) -> Iterator[Piece]:
    number = start = held = 0
    for end, sample in enumerate(samples):
        if end > start and (held >= shard_bytes or sample.domain != samples[start].domain):
            yield Piece(number, tuple(samples[start:end]))
            number, start, held = number + 1, end, 0
        held += sizes[end]
    if samples:
        yield Piece(number, tuple(samples[start:]))
