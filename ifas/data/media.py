"""Takes the media of a raw dataset apart into still images: an image file is one, a video gives several."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ifas.core.errors import ImageRefused
from ifas.core.imaging import ImageLimits
from ifas.data.readers import RawSample, Refusal
from ifas.data.still import Still
from ifas.data.video.ingest import frames_of
from ifas.data.video.plan import FramePlan


class ReadBuffer:
    """Memory that files are read into, one after the other. To take fresh memory for each costs more than hashing it.

    What it has read is valid until it reads again.
    """

    def __init__(self, size: int) -> None:
        self._memory = memoryview(bytearray(size))

    def read(self, path: str | Path, limits: ImageLimits) -> bytes | memoryview:
        """A file's bytes; ImageRefused before reading when it is larger than an image may be."""
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limits.max_bytes:
                raise ImageRefused(f"image has {size} bytes, the limit is {limits.max_bytes}")
            if size > len(self._memory):
                return file.read(size)
            return self._memory[: file.readinto(self._memory[:size])]


def stills(
    sample: RawSample, limits: ImageLimits, frames: FramePlan, buffer: ReadBuffer | None = None
) -> Iterator[Still | Refusal]:
    """The still images of one medium, in the order of its frames; a medium that can't be read is one refusal.

    Args:
        frames: which frames of a video are taken; an image file is taken as it is.
        buffer: where image files are read to; None: fresh memory for each.
    """
    try:
        # Opening a pipe would wait for ever.
        if not stat.S_ISREG(os.stat(sample.path).st_mode):
            raise ImageRefused("is not a regular file")
        if sample.container == "image":
            yield Still(sample, (buffer.read if buffer else read_limited)(sample.path, limits))
        else:
            yield from frames_of(sample, limits, frames)
    except ImageRefused as error:
        yield Refusal(sample.source, error.what, "read")
    except OSError as error:
        yield Refusal(sample.source, f"can't be read: {error.strerror or error}", "read")


def read_limited(path: str | Path, limits: ImageLimits) -> bytes:
    """As `ReadBuffer.read`, into memory of its own."""
    return bytes(ReadBuffer(0).read(path, limits))
