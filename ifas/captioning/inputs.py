"""What the captioner network sees of a picture: a small copy, a map of its fine detail, and the measurements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ifas.captioning.measure import MEASUREMENTS, Measured
from ifas.captioning.spectrum import PROFILE_BINS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]
    Floats = npt.NDArray[np.float32]

SIDE = 96

#: Red, green, blue, and the local strength of detail that the small copy no longer holds.
CHANNELS = 4

#: Measurements and the radial power spectrum.
FEATURES = len(MEASUREMENTS) + PROFILE_BINS

#: Local detail (standard deviation of grey values) that the fourth channel shows as 255.
_FULL_DETAIL = 0.12


@dataclass(frozen=True)
class NetworkInput:
    """picture: uint8 (CHANNELS, SIDE, SIDE). features: float32 (FEATURES,), unscaled."""

    picture: Bytes
    features: Floats


def network_input(measured: Measured) -> NetworkInput:
    """The network's input of a measured picture."""
    import cv2
    import numpy as np

    view = measured.view
    size = (SIDE, SIDE)
    small = cv2.resize(view.rgb, size, interpolation=cv2.INTER_AREA)
    detail = np.sqrt(cv2.resize(view.detail**2, size, interpolation=cv2.INTER_AREA)) / _FULL_DETAIL
    stacked = np.concatenate([small.transpose(2, 0, 1), detail[None]])
    features = np.array([*measured.values.values(), *measured.profile], dtype=np.float32)
    return NetworkInput(picture=np.rint(np.clip(stacked, 0, 1) * 255).astype(np.uint8), features=features)


class InputStore:
    """Network inputs of a whole dataset, on disk: 37 KB a picture, so memory does not grow with the dataset."""

    def __init__(self, pictures: Bytes, features: Floats) -> None:
        self._pictures = pictures
        self._features = features

    def put(self, place: int, value: NetworkInput) -> None:
        """Keeps an input at a place."""
        self._pictures[place] = value.picture
        self._features[place] = value.features

    def get(self, places: npt.NDArray[np.int64]) -> tuple[Bytes, Floats]:
        """Pictures (n, CHANNELS, SIDE, SIDE) and features (n, FEATURES) at some places, as copies."""
        import numpy as np

        return np.array(self._pictures[places]), np.array(self._features[places])

    def features(self, places: npt.NDArray[np.int64]) -> Floats:
        """Features (n, FEATURES) at some places."""
        return self._features[places]


@contextmanager
def input_store(folder: Path, count: int) -> Iterator[InputStore]:
    """A store for `count` inputs in an unnamed file in `folder`; it is gone when it is closed or the process dies."""
    import tempfile

    import numpy as np

    with tempfile.TemporaryFile(dir=folder) as file:
        pictures = np.memmap(file, np.uint8, "w+", shape=(max(count, 1), CHANNELS, SIDE, SIDE))
        yield InputStore(pictures, np.zeros((count, FEATURES), dtype=np.float32))
        del pictures
