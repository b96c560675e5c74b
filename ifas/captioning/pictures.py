"""The pictures of some rows, for a captioner that is tuned on them or writes about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ifas.core.imaging import decode

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from ifas.captioning.inputs import InputStore
    from ifas.captioning.view import Picture
    from ifas.core.manifest import ImageSource

#: Decoded pictures in memory at once; about 10 MB each while they are measured.
CHUNK = 16


@dataclass(frozen=True)
class Pictures:
    """Some rows' pictures, read when they are needed: decoded again, or as inputs of the captioner network.

    Attributes:
        where: shard and row of each picture.
        places: of each picture in `store`, int (n,).
    """

    where: list[tuple[str, int]]
    places: npt.NDArray[np.int64]
    images: ImageSource
    store: InputStore

    @classmethod
    def of(cls, rows: pd.DataFrame, places: npt.NDArray[np.int64], images: ImageSource, store: InputStore) -> Pictures:
        """The pictures of rows of a manifest."""
        return cls(list(zip(rows["shard"].astype(str), rows["row"].astype(int), strict=True)), places, images, store)

    def __len__(self) -> int:
        return len(self.where)

    def take(self, chosen: npt.NDArray[np.int64]) -> Pictures:
        """The pictures at some positions."""
        return Pictures([self.where[i] for i in chosen], self.places[chosen], self.images, self.store)

    def decoded(self, position: int) -> Picture:
        """One picture, uint8 RGB (H, W, 3)."""
        return decode(self.images.read(*self.where[position]))

    def chunks(self) -> Iterator[list[Picture]]:
        """All pictures in order, at most `CHUNK` decoded at a time."""
        for start in range(0, len(self), CHUNK):
            yield [self.decoded(i) for i in range(start, min(start + CHUNK, len(self)))]

    def inputs(self, chosen: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """Network inputs at some positions: uint8 (n, CHANNELS, SIDE, SIDE) and float32 (n, FEATURES)."""
        return self.store.get(self.places[chosen])

    def features(self) -> npt.NDArray[np.float32]:
        """Features of all pictures, float32 (n, FEATURES)."""
        return self.store.features(self.places)
