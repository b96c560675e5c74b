"""Repeating patterns: moire of screens, dots of halftone print, seen as peaks in the spectrum of small tiles.

A natural picture has a smooth spectrum at high frequencies. A screen or a print in front of the camera puts a peak
there, at another place in every tile since moire bends; so each tile is judged alone and the median tile counts.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Bools = npt.NDArray[np.bool_]

TILE = 64
STRIDE = 48

#: Rings of the tile's spectrum in cycles per tile: periods of 3.2 to 9 px, and of 2 to 3.2 px.
WAVES = (7.0, 20.0)
DOTS = (20.0, 31.0)

#: Bins of `radial_profile`.
PROFILE_BINS = 12


def tile_spectra(detail: Floats) -> Floats:
    """Magnitude spectra of overlapping windowed tiles of a plane (H, W) without its slow part, (tiles, 64, 33).

    A plane below 64 px is padded by mirror.
    """
    import numpy as np

    short = [max(0, TILE - side) for side in detail.shape]
    if any(short):
        detail = np.pad(detail, [(0, short[0]), (0, short[1])], mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(detail, (TILE, TILE))[::STRIDE, ::STRIDE]
    tiles = windows.reshape(-1, TILE, TILE) * _window()
    return np.abs(np.fft.rfft2(tiles)).astype(np.float32)


def peak(spectra: Floats, ring: tuple[float, float]) -> float:
    """Median over the tiles of the highest peak in a ring of frequencies, relative to that ring's median.

    Noise alone gives about 4 to 6.
    """
    import numpy as np

    inside = spectra[:, _ring(*ring)]
    floor = np.median(inside, axis=1)
    # A flat tile (no sensor noise at all) has nothing to repeat.
    ratios = np.where(floor > 1e-4, inside.max(axis=1) / np.maximum(floor, 1e-4), 0.0)
    return float(np.median(ratios))


def fine_over_coarse(spectra: Floats) -> float:
    """Log of the peak among the finest frequencies over the mean of coarser ones, medians over the tiles.

    Textures of cloth and walls are strong in both; a pixel grid or halftone in the finest alone.
    """
    import numpy as np

    fine = np.median(spectra[:, _ring(*DOTS)].max(axis=1))
    coarse = np.median(np.sqrt((spectra[:, _ring(*WAVES)] ** 2).mean(axis=1)))
    return float(np.log(fine + 1e-3) - np.log(coarse + 1e-3))


def radial_profile(spectra: Floats) -> Floats:
    """Log10 of the mean power in rings of equal width from 0 to the Nyquist frequency, (PROFILE_BINS,)."""
    import numpy as np

    power = (spectra**2).mean(axis=0)
    edges = np.linspace(0.0, TILE / 2, PROFILE_BINS + 1)
    means = [power[_ring(float(a), float(b))].mean() for a, b in pairwise(edges)]
    profile: Floats = np.log10(np.asarray(means, dtype=np.float32) + np.float32(1e-8))
    return profile


@cache
def _window() -> Floats:
    import numpy as np

    return np.outer(np.hanning(TILE), np.hanning(TILE)).astype(np.float32)


@cache
def _ring(low: float, high: float) -> Bools:
    import numpy as np

    rows = np.fft.fftfreq(TILE, 1 / TILE)[:, None]
    columns = np.arange(TILE // 2 + 1)[None, :]
    radius = np.hypot(rows, columns)
    # The pure vertical frequency is left out: JPEG blocks and sensor rows live there.
    ring: Bools = (radius >= low) & (radius < high) & (columns > 0)
    return ring
