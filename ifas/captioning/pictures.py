"""The pictures of some rows, for a captioner that is tuned on them or writes about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ifas.core.imaging import decode

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from ifas.captioning.view import Picture
    from ifas.core.manifest import ImageSource

#: Decoded pictures in memory at once; about 10 MB each while they are measured.
CHUNK = 16


@dataclass(frozen=True)
class Pictures:
    """Some rows' pictures, decoded when they are needed, and what is known of them.

    Attributes:
        where: shard and row of each picture.
        said: its general caption.
        features: measurements and traces, float32 (n, FEATURES).
    """

    where: list[tuple[str, int]]
    said: list[str]
    features: npt.NDArray[np.float32]
    images: ImageSource

    @classmethod
    def of(cls, rows: pd.DataFrame, features: npt.NDArray[np.float32], images: ImageSource) -> Pictures:
        """The pictures of rows of a manifest that have general captions."""
        where = list(zip(rows["shard"].astype(str), rows["row"].astype(int), strict=True))
        return cls(where, rows["caption_general"].tolist(), features, images)

    def __len__(self) -> int:
        return len(self.where)

    def take(self, chosen: npt.NDArray[np.int64] | Sequence[int]) -> Pictures:
        """The pictures at some positions."""
        where, said = [self.where[i] for i in chosen], [self.said[i] for i in chosen]
        return Pictures(where, said, self.features[chosen], self.images)

    def decoded(self, position: int) -> Picture:
        """One picture, uint8 RGB (H, W, 3)."""
        return decode(self.images.read(*self.where[position]))

    def chunks(self) -> Iterator[list[Picture]]:
        """All pictures in order, at most `CHUNK` decoded at a time."""
        for start in range(0, len(self), CHUNK):
            yield [self.decoded(i) for i in range(start, min(start + CHUNK, len(self)))]
