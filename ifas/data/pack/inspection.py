"""Looks at the file of every still image once: hash of its bytes, size by its header, or why it is refused.

Nothing is decoded here: that would cost ten times what reading and hashing cost, and the `validate` step, which looks
at every picture, does it anyway (`ifas.core.picture_inspection`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from ifas.core.errors import ImageRefused
from ifas.core.imaging import ImageLimits, header
from ifas.data.media import ReadBuffer, stills
from ifas.data.readers import RawSample, Refusal
from ifas.data.still import Still
from ifas.data.video.plan import FramePlan


class Inspected(NamedTuple):
    """An image whose header is sound and whose end is there. Width and height are those of the decoded image, upright.

    `data` may only be looked at until the next image is asked for.
    """

    sample: RawSample
    data: bytes | memoryview
    sample_id: str
    width: int
    height: int


def inspect(
    sample: RawSample, limits: ImageLimits, frames: FramePlan, buffer: ReadBuffer | None = None
) -> Iterator[Inspected | Refusal]:
    """What became of each still image of a sample, in order."""
    for found in stills(sample, limits, frames, buffer):
        if isinstance(found, Refusal):
            yield found._replace(pai_species=sample.pai_species, domain=sample.domain)
        else:
            yield _inspected(found, limits)


def _inspected(still: Still, limits: ImageLimits) -> Inspected | Refusal:
    try:
        width, height = header(still.data, limits)
    except ImageRefused as error:
        sample = still.sample
        return Refusal(sample.source, error.what, "decode", sample.pai_species, sample.domain)
    return Inspected(still.sample, still.data, hashlib.sha256(still.data).hexdigest(), width, height)
