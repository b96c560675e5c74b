"""A 64-bit perceptual hash: images that look the same get hashes that differ in few bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def phash(grey: npt.NDArray[np.uint8]) -> str:
    """DCT hash of a grey image (H, W), 16 hex digits (Zauner, "Implementation and Benchmarking of Perceptual Image Hash
    Functions", 2010, section 3.2.1).

    Scaled to 32x32, two-dimensional DCT-II, the 8x8 lowest frequencies without the constant row and column; a bit says
    whether its coefficient is above their median. Changes of size, brightness and compression move few bits.
    """
    import cv2
    import numpy as np
    from scipy.fft import dctn

    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float64)
    low = dctn(small, norm="ortho")[1:9, 1:9]
    bits = np.packbits((low > np.median(low)).ravel())
    return bits.tobytes().hex()
