"""Array types, and the smooth step and unit vectors that several modules use."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]
Index = npt.NDArray[np.intp]
Bool = npt.NDArray[np.bool_]


def smoothstep(low: float, high: float, x: Any) -> Any:
    """0 below `low`, 1 above `high`, cubic between; `low` > `high` falls instead of rising."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def unit(v: F32) -> F32:
    """Rows of `v` (n, 3) scaled to length 1."""
    length = np.sqrt(dot(v, v))
    return np.asarray(v / np.maximum(length, 1e-9)[:, None], dtype=np.float32)


def dot(a: F32, b: F32) -> F32:
    """Row-wise dot product of (n, 3) with (n, 3) or (3,)."""
    # Column by column: a numpy reduction over an axis of three is many times slower.
    out = a[:, 0] * b[..., 0] + a[:, 1] * b[..., 1] + a[:, 2] * b[..., 2]
    return np.asarray(out, dtype=np.float32)


def rgb(*values: float) -> F32:
    """A colour or a gain per channel, in single precision so that it does not widen what it multiplies."""
    return np.array(values, dtype=np.float32)


def srgb_encode(linear: Any) -> F32:
    """Linear light to sRGB code values, both in [0, 1] (IEC 61966-2-1)."""
    x = np.clip(np.asarray(linear, dtype=np.float32), 0, 1)
    high = 1.055 * np.power(x, np.float32(1 / 2.4)) - 0.055
    return np.asarray(np.where(x < 0.0031308, 12.92 * x, high), dtype=np.float32)


def srgb_decode(code: Any) -> F32:
    """sRGB code values to linear light, both in [0, 1]."""
    x = np.asarray(code, dtype=np.float32)
    high = np.power((x + 0.055) / 1.055, np.float32(2.4))
    return np.asarray(np.where(x < 0.04045, x / 12.92, high), dtype=np.float32)
