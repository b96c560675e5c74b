"""Value noise in three dimensions: freckles, hair strands, cloth, walls."""

from __future__ import annotations

import numpy as np

from ifas.simulator.arrays import F32
from ifas.simulator.jit import kernel

GRID = 32  # cells per side; the noise repeats after that many units


@kernel
def _fractal(grid: F32, points: F32, scale: F32, octaves: int) -> F32:
    mask = grid.shape[0] - 1
    out = np.empty(points.shape[0], np.float32)
    for i in range(points.shape[0]):
        total = np.float32(0.0)
        weight = np.float32(1.0)
        norm = np.float32(0.0)
        for k in range(octaves):
            f = np.float32(2**k)
            shift = np.float32(17.3 * k)
            x = points[i, 0] * scale[0] * f + shift
            y = points[i, 1] * scale[1] * f + shift
            z = points[i, 2] * scale[2] * f + shift
            x0 = np.floor(x)
            y0 = np.floor(y)
            z0 = np.floor(z)
            u = x - x0
            v = y - y0
            w = z - z0
            a = int(x0) & mask
            b = int(y0) & mask
            c = int(z0) & mask
            a1 = (a + 1) & mask
            b1 = (b + 1) & mask
            c1 = (c + 1) & mask
            low = (grid[a, b, c] * (1 - u) + grid[a1, b, c] * u) * (1 - v) + (
                grid[a, b1, c] * (1 - u) + grid[a1, b1, c] * u
            ) * v
            high = (grid[a, b, c1] * (1 - u) + grid[a1, b, c1] * u) * (1 - v) + (
                grid[a, b1, c1] * (1 - u) + grid[a1, b1, c1] * u
            ) * v
            total += weight * (low * (1 - w) + high * w)
            norm += weight
            weight *= np.float32(0.5)
        out[i] = total / norm
    return out


class Noise:
    """Smooth noise in about [-1, 1] over space, fixed by the generator it was made with."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._grid = rng.uniform(-1, 1, (GRID, GRID, GRID)).astype(np.float32)

    def __call__(self, points: F32, frequency: float | tuple[float, float, float], octaves: int = 1) -> F32:
        """Noise at `points` (n, 3): shape (n,). `frequency` in cells per unit, each octave doubles it."""
        scale = np.broadcast_to(np.asarray(frequency, dtype=np.float32), (3,))
        return _fractal(self._grid, np.ascontiguousarray(points, np.float32), np.array(scale), octaves)
