"""Ambient occlusion and cast shadows, both by depth maps from the light's side."""

from __future__ import annotations

import numpy as np

from ifas.simulator.arrays import F32, I32
from ifas.simulator.jit import kernel
from ifas.simulator.raster import NO_CUT, View, depth_map
from ifas.simulator.topology import compact, vertex_normals

CENTRE = np.array([0.0, -0.6, -0.9])  # middle of head and shoulders, from between the eyes
REACH = 2.7  # half the side of the lit square, decimetres


def _spiral(n: int) -> F32:
    """`n` directions spread evenly over the sphere (golden angle)."""
    y = 1 - 2 * (np.arange(n) + 0.5) / n
    angle = np.arange(n) * 2.39996
    ring = np.sqrt(1 - y * y)
    return np.stack([ring * np.cos(angle), y, ring * np.sin(angle)], axis=1).astype(np.float32)


#: Directions that ambient light comes from: (14, 3).
DIRECTIONS = _spiral(14)
#: Taps of the soft shadow, in units of its width.
TAPS = np.random.default_rng(1).normal(0, 1, (9, 2)).astype(np.float32)


@kernel
def _visible(screen: F32, depth: F32, taps: F32, width: float, bias: float) -> F32:
    size = depth.shape[0]
    out = np.empty(screen.shape[0], np.float32)
    for i in range(screen.shape[0]):
        hits = 0
        for k in range(taps.shape[0]):
            x = min(max(int(screen[i, 0] + taps[k, 0] * width), 0), size - 1)
            y = min(max(int(screen[i, 1] + taps[k, 1] * width), 0), size - 1)
            if screen[i, 2] < depth[y, x] + bias:
                hits += 1
        out[i] = hits / taps.shape[0]
    return out


def _light_view(direction: F32, size: int) -> View:
    return View.looking(CENTRE + direction * 6, CENTRE, size / 2 / REACH, size, orthographic=True)


def shadow(points: F32, direction: F32, mesh: F32, triangles: I32, cut: F32, softness: float, size: int = 512) -> F32:
    """Share of a directional light that reaches `points` (n, 3): (n,), 0 in shadow.

    Args:
        direction: unit vector towards the light.
        mesh, triangles, cut: what casts the shadow.
        softness: width of the penumbra in decimetres.
    """
    view = _light_view(direction, size)
    depth = depth_map(view, mesh, triangles, cut)
    return _visible(view.project(points), depth, TAPS, softness * view.focal, 0.035)


def openness(coarse: F32, triangles: I32) -> F32:
    """Cosine-weighted visibility of each of `DIRECTIONS` at the vertices: (n, 14); 0 for vertices not in use."""
    used, faces = compact(triangles)
    points = np.ascontiguousarray(coarse[used], np.float32)
    normals = vertex_normals(points, faces)
    out = np.zeros((len(coarse), len(DIRECTIONS)), np.float32)
    for k, direction in enumerate(DIRECTIONS):
        view = _light_view(direction, 160)
        depth = depth_map(view, points, faces, NO_CUT)
        seen = _visible(view.project(points + normals * np.float32(0.05)), depth, TAPS[:6], 1.2, 0.08)
        out[used, k] = seen * np.clip(normals @ direction, 0, 1)
    return out
