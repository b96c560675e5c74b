"""Takes the media of a raw dataset apart into still images: an image file is one, a video gives several."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ifas.core.errors import ImageRefused
from ifas.core.imaging import ImageLimits
from ifas.data.readers import RawSample, Refusal
from ifas.data.video.plan import FramePlan


@dataclass(frozen=True)
class Still:
    """One encoded image. `sample` is that of the medium, with frame, track, box and quality filled in."""

    sample: RawSample
    data: bytes


def stills(sample: RawSample, limits: ImageLimits, frames: FramePlan) -> Iterator[Still | Refusal]:
    """The still images of one medium, in the order of its frames; a medium that can't be read is one refusal.

    Args:
        frames: which frames of a video are taken; an image file is taken as it is.
    """
    try:
        if sample.container == "image":
            yield Still(sample, read_limited(sample.path, limits))
        else:
            from ifas.data.video.ingest import frames_of

            yield from frames_of(sample, limits, frames)
    except ImageRefused as error:
        yield Refusal(sample.source, error.what, "read")
    except OSError as error:
        yield Refusal(sample.source, f"can't be read: {error.strerror or error}", "read")


def read_limited(path: Path, limits: ImageLimits) -> bytes:
    """A file's bytes; ImageRefused before reading when it is larger than an image may be."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limits.max_bytes:
            raise ImageRefused(f"image has {size} bytes, the limit is {limits.max_bytes}")
        return file.read(size + 1)
