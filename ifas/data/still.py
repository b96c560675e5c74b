"""One encoded image, as it lies in a raw dataset or was taken out of a video."""

from __future__ import annotations

from dataclasses import dataclass

from ifas.data.readers import RawSample


@dataclass(frozen=True)
class Still:
    """One encoded image. `sample` is that of the medium, with frame, track, box and quality filled in."""

    sample: RawSample
    data: bytes | memoryview
