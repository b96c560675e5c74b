"""Smooth surfaces from the coarse mesh: Loop subdivision as a sparse matrix, computed once per process.

Reference: C. Loop, Smooth Subdivision Surfaces Based on Triangles, 1987; boundary rule of Hoppe et al., 1994.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import sparse

from ifas.simulator.arrays import F32, I32
from ifas.simulator.headpack import head_pack
from ifas.simulator.jit import kernel


@kernel
def vertex_normals(points: F32, triangles: I32) -> F32:
    """Area-weighted unit normals (n, 3) of a triangle mesh."""
    out = np.zeros_like(points)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux = points[b, 0] - points[a, 0]
        uy = points[b, 1] - points[a, 1]
        uz = points[b, 2] - points[a, 2]
        vx = points[c, 0] - points[a, 0]
        vy = points[c, 1] - points[a, 1]
        vz = points[c, 2] - points[a, 2]
        nx = uy * vz - uz * vy
        ny = uz * vx - ux * vz
        nz = ux * vy - uy * vx
        for k in range(3):
            v = triangles[t, k]
            out[v, 0] += nx
            out[v, 1] += ny
            out[v, 2] += nz
    for i in range(out.shape[0]):
        length = np.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2) + np.float32(1e-12)
        out[i, 0] /= length
        out[i, 1] /= length
        out[i, 2] /= length
    return out


def loop_step(triangles: I32, n: int) -> tuple[Any, I32]:
    """One Loop subdivision of a mesh with `n` vertices: (operator (n + edges, n) in CSR, new triangles)."""
    corners = triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]
    opposite = np.concatenate([triangles[:, 2], triangles[:, 0], triangles[:, 1]])
    edges, of, count = np.unique(
        np.sort(np.concatenate(corners), axis=1), axis=0, return_inverse=True, return_counts=True
    )
    of = of.ravel()
    m = len(edges)
    rows = np.arange(m)
    rim = count != 2

    def pairs(a: Any, b: Any, shape: tuple[int, int]) -> Any:
        return sparse.coo_matrix((np.ones(len(a)), (a, b)), shape).tocsr()

    ends = pairs(np.r_[rows, rows], np.r_[edges[:, 0], edges[:, 1]], (m, n))
    across = pairs(of, opposite, (m, n))
    edge_points = sparse.diags(np.where(rim, 0.5, 0.375)) @ ends + sparse.diags(np.where(rim, 0, 0.125)) @ across

    ring = pairs(np.r_[edges[:, 0], edges[:, 1]], np.r_[edges[:, 1], edges[:, 0]], (n, n))
    valence = np.asarray(ring.sum(1)).ravel()
    on_rim = np.zeros(n, bool)
    on_rim[edges[rim].ravel()] = True
    beta = np.where(valence == 3, 3 / 16, 3 / (8 * np.maximum(valence, 1)))
    rim_edges = edges[rim]
    rim_ring = pairs(np.r_[rim_edges[:, 0], rim_edges[:, 1]], np.r_[rim_edges[:, 1], rim_edges[:, 0]], (n, n))
    vertex_points = (
        sparse.diags(np.where(on_rim, 0.75, 1 - valence * beta))
        + sparse.diags(np.where(on_rim, 0, beta)) @ ring
        + sparse.diags(np.where(on_rim, 0.125, 0)) @ rim_ring
    )
    e = of.reshape(3, -1).T + n
    a, b, c = triangles.T
    finer = np.concatenate([np.c_[a, e[:, 0], e[:, 2]], np.c_[b, e[:, 1], e[:, 0]], np.c_[c, e[:, 2], e[:, 1]], e])
    return sparse.vstack([vertex_points, edge_points]).tocsr(), finer.astype(np.int32)


def compact(triangles: I32) -> tuple[I32, I32]:
    """(vertices in use, triangles renumbered to them)."""
    used, renumbered = np.unique(triangles, return_inverse=True)
    return used.astype(np.int32), renumbered.reshape(triangles.shape).astype(np.int32)


@dataclass(frozen=True)
class Surface:
    """A subdivided part of the head.

    Attributes:
        operator: sparse (n, 6305); times coarse vertices gives smooth ones.
        triangles: (m, 3).
        rest: (n, 3) the base head's smooth vertices; the coordinates that paint and noise live in.
    """

    operator: Any
    triangles: I32
    rest: F32

    def smooth(self, coarse: F32) -> F32:
        """Coarse per-vertex values (6305, c) carried to the smooth vertices."""
        return np.asarray(self.operator @ coarse, dtype=np.float32)


def _surface(triangles: I32, levels: int) -> Surface:
    base = head_pack().base
    used, faces = compact(triangles)
    operator: Any = sparse.csr_matrix((np.ones(len(used)), (np.arange(len(used)), used)), (len(used), len(base)))
    for _ in range(levels):
        step, faces = loop_step(faces, operator.shape[0])
        operator = (step @ operator).tocsr()
    operator = operator.astype(np.float32)
    return Surface(operator, faces, np.asarray(operator @ base, dtype=np.float32))


@cache
def surfaces() -> dict[str, Surface]:
    """Smooth body (head and shoulders), eyes, mouth and the curtain of long hair."""
    pack = head_pack()
    hair = pack.groups["hair"]
    corner = pack.base[hair]
    behind = (corner[..., 2].max(1) < 0.55) & ((np.abs(corner[..., 0]).max(1) > 0.45) | (corner[..., 2].max(1) < 0))
    return {
        "body": _surface(pack.groups["body"], 2),
        "eyes": _surface(pack.groups["eyes"], 2),
        "mouth": _surface(pack.groups["mouth"], 1),
        "curtain": _surface(hair[behind], 2),
    }
