"""Takes the media of a raw dataset apart into still images: an image file is one, a video gives several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ifas.core.errors import ImageRefused
from ifas.core.imaging import ImageLimits
from ifas.data.inspection import read_limited
from ifas.data.readers import RawSample, Refusal


@dataclass(frozen=True)
class Still:
    """One encoded image. `sample` is that of the medium, with frame, track, box and quality filled in."""

    sample: RawSample
    data: bytes


def stills(sample: RawSample, limits: ImageLimits) -> Iterator[Still | Refusal]:
    """The still images of one medium, in the order of its frames; nothing else of it is kept in memory."""
    try:
        yield Still(sample, read_limited(sample.path, limits))
    except ImageRefused as error:
        yield Refusal(sample.source, error.what)
    except OSError as error:
        yield Refusal(sample.source, f"can't be read: {error.strerror or error}")
