"""A z-buffer for triangle meshes: which triangle each pixel sees, and perspective-correct interpolation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ifas.simulator.arrays import F32, I32
from ifas.simulator.jit import kernel

NEAR = 0.05  # decimetres; triangles closer than that are not drawn
NO_CUT = np.zeros(0, np.float32)


@kernel
def _zbuffer(screen: F32, triangles: I32, width: int, height: int, cut: F32) -> tuple[I32, F32, F32]:
    seen = np.full((height, width), -1, np.int32)
    weights = np.zeros((height, width, 2), np.float32)
    depth = np.full((height, width), np.inf, np.float32)
    has_cut = cut.shape[0] > 0
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        za, zb, zc = screen[i, 2], screen[j, 2], screen[k, 2]
        if za < NEAR or zb < NEAR or zc < NEAR:
            continue
        if has_cut and cut[i] < 0 and cut[j] < 0 and cut[k] < 0:
            continue
        ax, ay = screen[i, 0], screen[i, 1]
        bx, by = screen[j, 0], screen[j, 1]
        cx, cy = screen[k, 0], screen[k, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-9:
            continue
        per_area = 1.0 / area
        x0 = max(0, int(np.ceil(min(ax, bx, cx) - 0.5)))
        x1 = min(width - 1, int(np.floor(max(ax, bx, cx) - 0.5)))
        y0 = max(0, int(np.ceil(min(ay, by, cy) - 0.5)))
        y1 = min(height - 1, int(np.floor(max(ay, by, cy) - 0.5)))
        for y in range(y0, y1 + 1):
            fy = y + 0.5
            for x in range(x0, x1 + 1):
                fx = x + 0.5
                w1 = ((fx - ax) * (cy - ay) - (fy - ay) * (cx - ax)) * per_area
                w2 = ((bx - ax) * (fy - ay) - (by - ay) * (fx - ax)) * per_area
                w0 = 1 - w1 - w2
                if w1 < -1e-5 or w2 < -1e-5 or w0 < -1e-5:
                    continue
                z = za * w0 + zb * w1 + zc * w2
                if z >= depth[y, x]:
                    continue
                if has_cut and cut[i] * w0 + cut[j] * w1 + cut[k] * w2 < 0:
                    continue
                depth[y, x] = z
                seen[y, x] = t
                weights[y, x, 0] = w1
                weights[y, x, 1] = w2
    return seen, weights, depth


@kernel
def _project(points: F32, axes: F32, eye: F32, focal: float, half: float, orthographic: bool) -> F32:
    out = np.empty_like(points)
    for i in range(points.shape[0]):
        x, y, z = points[i, 0] - eye[0], points[i, 1] - eye[1], points[i, 2] - eye[2]
        depth = axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z
        scale = focal if orthographic else focal / max(depth, 1e-4)
        out[i, 0] = (axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z) * scale + half
        out[i, 1] = (axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z) * scale + half
        out[i, 2] = depth
    return out


@kernel
def _gather(values: F32, triangles: I32, z: F32, pixels: I32, seen: I32, weights: F32) -> F32:
    out = np.empty((pixels.shape[0], values.shape[1]), np.float32)
    for p in range(pixels.shape[0]):
        y, x = pixels[p, 0], pixels[p, 1]
        t = seen[y, x]
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        w1 = weights[y, x, 0]
        w2 = weights[y, x, 1]
        w0 = (1 - w1 - w2) / z[i]
        w1 = w1 / z[j]
        w2 = w2 / z[k]
        total = w0 + w1 + w2
        w0 /= total
        w1 /= total
        w2 /= total
        for c in range(values.shape[1]):
            out[p, c] = values[i, c] * w0 + values[j, c] * w1 + values[k, c] * w2
    return out


@dataclass(frozen=True)
class View:
    """A pinhole or orthographic camera looking at the scene.

    Attributes:
        axes: (3, 3) rows right, down, forward.
        eye: position in decimetres.
        focal: pixels (pinhole), or pixels per decimetre (orthographic).
        size: side of the square picture in pixels.
    """

    axes: F32
    eye: F32
    focal: float
    size: int
    orthographic: bool = False

    @classmethod
    def looking(
        cls,
        eye: object,
        at: object,
        focal: float,
        size: int,
        roll: float = 0.0,
        orthographic: bool = False,
    ) -> View:
        """A camera at `eye` that looks at `at`, turned by `roll` radians about its axis."""
        e = np.asarray(eye, dtype=np.float64)
        forward = np.asarray(at, dtype=np.float64) - e
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, (np.sin(roll), np.cos(roll), 1e-3))
        right /= np.linalg.norm(right)
        axes = np.stack([right, -np.cross(right, forward), forward]).astype(np.float32)
        return cls(axes, e.astype(np.float32), float(focal), size, orthographic)

    def project(self, points: F32) -> F32:
        """Points (n, 3) to (n, 3): pixel x, pixel y, depth in decimetres."""
        points = np.ascontiguousarray(points, np.float32)
        return _project(points, self.axes, self.eye, self.focal, self.size / 2, self.orthographic)


@dataclass(frozen=True)
class Fragments:
    """What a view sees of a mesh: one row per covered pixel.

    Attributes:
        pixels: (m, 2) row, column.
        triangle: (m,) index of the visible triangle.
        depth: (size, size), infinite where nothing is.
    """

    pixels: I32
    triangle: I32
    depth: F32
    _seen: I32
    _weights: F32
    _triangles: I32
    _z: F32

    def interpolate(self, values: F32) -> F32:
        """Per-vertex `values` (n, c) at the covered pixels, perspective-correct: (m, c)."""
        return _gather(
            np.ascontiguousarray(values, np.float32),
            self._triangles,
            self._z,
            self.pixels,
            self._seen,
            self._weights,
        )

    def image(self, values: F32, fill: float = 0.0) -> F32:
        """Per-pixel `values` (m, ...) put back into a picture (size, size, ...)."""
        out = np.full(self.depth.shape + values.shape[1:], fill, np.float32)
        out[self.pixels[:, 0], self.pixels[:, 1]] = values
        return out


def depth_map(view: View, points: F32, triangles: I32, cut: F32 = NO_CUT) -> F32:
    """Depth (size, size) of the nearest surface per pixel, infinite where nothing is."""
    return _zbuffer(view.project(points), triangles, view.size, view.size, cut)[2]


def rasterise(view: View, points: F32, triangles: I32, cut: F32 = NO_CUT) -> Fragments:
    """Draws a mesh. Where the interpolated per-vertex `cut` is negative, the surface is not there."""
    screen = view.project(points)
    seen, weights, depth = _zbuffer(screen, triangles, view.size, view.size, cut)
    pixels = np.argwhere(seen >= 0).astype(np.int32)
    z = np.ones(len(screen), np.float32) if view.orthographic else screen[:, 2].copy()
    return Fragments(pixels, seen[pixels[:, 0], pixels[:, 1]], depth, seen, weights, triangles, z)
