"""The CC0 head geometry that ships with the simulator (MakeHuman / MPFB2, see NOTICE).

`assets/headpack.npz`: 6,305 vertices in decimetres, triangles per group, and 209 morph targets as sparse int16
offsets in steps of 0.05 mm. `assets/uvmasks.npz`: grey masks in UV space for lips, eyelids, ears and mouth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from ifas.simulator.arrays import F32, I32

STEP = 1 / 2000  # decimetres per int16 unit


@dataclass(frozen=True)
class HeadPack:
    """Base mesh, triangle groups, UV masks and morph targets.

    Attributes:
        base: (6305, 3) vertex positions in decimetres; x to the person's left, y up, z to the front.
        uv: (6305, 2) texture coordinates. textures: grey masks in [0, 1], see `mask_at`.
        groups: triangles (n, 3) of body, eyes, mouth, hair and lash.
        lash_line: (n, 3) points along the rims of the eyelids.
    """

    base: F32
    uv: F32
    groups: Mapping[str, I32]
    textures: Mapping[str, F32]
    lash_line: F32
    _targets: Mapping[str, tuple[Any, Any]]

    def add(self, vertices: F32, target: str, weight: float) -> None:
        """Adds `weight` times a morph target to `vertices`, in place. Raises KeyError for an unknown target."""
        index, offset = self._targets[target]
        if weight:
            vertices[index] += np.float32(weight * STEP) * offset

    def mask_at(self, name: str, uv: F32) -> F32:
        """Grey mask `name` sampled at `uv` (n, 2): (n,) in [0, 1], bilinear."""
        image = self.textures[name]
        h, w = image.shape
        x = np.clip(uv[:, 0] * w - 0.5, 0, w - 1.001)
        y = np.clip((1 - uv[:, 1]) * h - 0.5, 0, h - 1.001)
        i, j = y.astype(np.int32), x.astype(np.int32)
        fy, fx = y - i, x - j
        top = image[i, j] * (1 - fx) + image[i, j + 1] * fx
        bottom = image[i + 1, j] * (1 - fx) + image[i + 1, j + 1] * fx
        return np.asarray(top * (1 - fy) + bottom * fy, dtype=np.float32)


def _short(name: str) -> str:
    """`mpfb2/targets/nose/nose-hump-incr.target.gz` -> `nose/nose-hump-incr`; face units lose their folder."""
    name = name.removeprefix("mpfb2/targets/").removeprefix("faceunits01/targets/")
    return name.removesuffix(".gz").removesuffix(".target")


@cache
def head_pack() -> HeadPack:
    """The pack, read once per process."""
    assets = resources.files("ifas.simulator") / "assets"
    with (assets / "headpack.npz").open("rb") as f:
        z = dict(np.load(f))
    with (assets / "uvmasks.npz").open("rb") as f:
        textures = {k: v.astype(np.float32) / 255 for k, v in np.load(f).items()}
    spans = zip(z["names"], z["ptr"][:-1], z["ptr"][1:], strict=True)
    targets = {
        _short(str(name)): (z["idx"][a:b].astype(np.int32), z["val"][a:b].astype(np.float32)) for name, a, b in spans
    }
    groups = {k[2:]: z[k].astype(np.int32) for k in z if k.startswith("f_")}
    # The two rear corners of each lash triangle lie on the lid; their middle closes the gap between them.
    corners = z["V0"][groups["lash"]]
    rear = np.take_along_axis(corners, np.argsort(corners[..., 2], axis=1)[:, :2, None], axis=1)
    line = np.concatenate([rear.reshape(-1, 3), rear.mean(1)])
    return HeadPack(z["V0"], z["UV"], groups, textures, line.astype(np.float32), targets)
