"""Perceptual hashes: images that look the same get hashes that differ in few bits.

64 bits find the candidates among a million images, but do not settle it: among 3,326 staged portraits, images of
different people differ in 2 of them. So a hash has 512 finer bits as well. Of images within 2 of the 64 bits, those of
one image (JPEG 50, scaled by 0.5 to 1.6, sharp or blurred) differ in at most 40 of the 512; of the images of different
people within 6 of the 64 bits, none differ in fewer than 87. tests/unit/core/test_phash.py has the like on portraits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: Of the part that finds candidates, and of the part that confirms them.
COARSE_BITS, FINE_BITS = 64, 512
#: What a whole hash looks like: the 64 bits, then the 512.
HASH_DIGITS = (COARSE_BITS + FINE_BITS) // 4
HASH_FORMAT = f"[0-9a-f]{{{HASH_DIGITS}}}"
#: Two images are the same only if they differ in at most this many of the finer bits.
MOST_FINE_BITS = 60
#: A frequency counts as clear above this share of the mean strength of the 8x8 lowest: what is weaker, in a blurred
#: image most of the 256, may change its sign when the image is compressed again.
CLEAR = 0.2


def phash(grey: npt.NDArray[np.uint8]) -> str:
    """DCT hash of a grey image (H, W), 144 hex digits.

    Scaled to 32x32, two-dimensional DCT-II. The 64 bits are those of Zauner ("Implementation and Benchmarking of
    Perceptual Image Hash Functions", 2010, section 3.2.1): of the 8x8 lowest frequencies without the constant row and
    column, whether the coefficient is above their median. Changes of size, brightness and compression move few bits.
    The finer ones say of the 16x16 lowest frequencies which are clearly positive, then which are clearly negative.
    """
    import cv2
    import numpy as np
    from scipy.fft import dctn

    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float64)
    frequencies = dctn(small, norm="ortho")[1:17, 1:17]
    low = frequencies[:8, :8]
    clear = CLEAR * np.abs(low).mean()
    bits = (low > np.median(low), frequencies > clear, frequencies < -clear)
    return b"".join(np.packbits(part.ravel()).tobytes() for part in bits).hex()


def words(hashes: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Hashes as numbers (n, 9): the 64 bits that find candidates, then the 512 that confirm them."""
    import numpy as np

    numbers = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=">u8").astype(np.uint64)
    return numbers.reshape(-1, HASH_DIGITS // 16)


def confirmed(a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Whether the finer bits of `words` a and b, (..., 9) each, are those of one image, (...)."""
    import numpy as np

    differing: npt.NDArray[np.int64] = np.bitwise_count(a[..., 1:] ^ b[..., 1:]).sum(axis=-1, dtype=np.int64)
    return differing <= MOST_FINE_BITS
