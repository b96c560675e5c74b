"""Light: one soft directional key, a coloured sky, GGX highlights, and light that spreads inside skin.

GGX: B. Walter et al., Microfacet Models for Refraction through Rough Surfaces, 2007; Fresnel after Schlick, 1994.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ifas.simulator.arrays import F32
from ifas.simulator.jit import kernel
from ifas.simulator.occlusion import DIRECTIONS


@dataclass(frozen=True)
class LightRange:
    """What a place's light may be; ranges are (low, high).

    Attributes:
        azimuth: degrees to the side that the key comes from, either side; above 90 it comes from behind.
        elevation: degrees above the horizon.
        key, sky: strengths. softness: penumbra in decimetres.
        warmth: 1 is tungsten, -1 is open shade; of the key and of the sky.
    """

    azimuth: tuple[float, float]
    elevation: tuple[float, float]
    key: tuple[float, float]
    sky: tuple[float, float]
    softness: tuple[float, float]
    warmth: tuple[float, float]
    sky_warmth: tuple[float, float]


@kernel
def _weighted(weights: F32, colours: F32) -> F32:
    """weights (n, k) @ colours (k, 3); BLAS is slow on such thin matrices, and its sums depend on its threads."""
    out = np.zeros((weights.shape[0], 3), np.float32)
    for i in range(weights.shape[0]):
        for k in range(weights.shape[1]):
            w = weights[i, k]
            out[i, 0] += w * colours[k, 0]
            out[i, 1] += w * colours[k, 1]
            out[i, 2] += w * colours[k, 2]
    return out


@dataclass(frozen=True)
class Light:
    """One drawn light. `towards` is a unit vector to the key; colours are linear RGB."""

    towards: F32
    key: F32
    sky: F32
    lean: float
    softness: float

    def from_sky(self, directions: F32) -> F32:
        """Sky radiance from `directions` (n, 3): (n, 3); brighter above and on one side."""
        up = np.clip(0.55 + 0.45 * directions[:, 1:2], 0, 1)
        return np.asarray(self.sky * up * (1 + self.lean * directions[:, :1]), dtype=np.float32)

    def ambient(self, openness: F32) -> F32:
        """Irradiance from the sky at points with `openness` (n, 14): (n, 3)."""
        return _weighted(openness, self.from_sky(DIRECTIONS) * np.float32(4 / len(DIRECTIONS)))


def draw_light(rng: np.random.Generator, span: LightRange) -> Light:
    """A light within the range of a place."""
    side = float(rng.choice((-1.0, 1.0)))
    azimuth = side * np.deg2rad(rng.uniform(*span.azimuth))
    elevation = np.deg2rad(rng.uniform(*span.elevation))
    towards = (np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation))
    w, s = rng.uniform(*span.warmth), rng.uniform(*span.sky_warmth)
    return Light(
        np.array(towards, np.float32),
        (np.array([1 + 0.14 * w, 1, 1 - 0.22 * w]) * rng.uniform(*span.key)).astype(np.float32),
        (np.array([1 + 0.10 * s, 1, 1 - 0.16 * s]) * rng.uniform(*span.sky)).astype(np.float32),
        float(rng.uniform(-0.3, 0.3)),
        float(rng.uniform(*span.softness)),
    )


@kernel
def ggx(normals: F32, views: F32, light: F32, roughness: F32, f0: float) -> F32:
    """Specular reflectance times the light's cosine: normals, views (n, 3), unit `light` (3,): (n,)."""
    out = np.zeros(normals.shape[0], np.float32)
    for i in range(normals.shape[0]):
        nl = normals[i, 0] * light[0] + normals[i, 1] * light[1] + normals[i, 2] * light[2]
        if nl <= 0:
            continue
        nv = normals[i, 0] * views[i, 0] + normals[i, 1] * views[i, 1] + normals[i, 2] * views[i, 2]
        nv = max(nv, 0.05)
        hx, hy, hz = views[i, 0] + light[0], views[i, 1] + light[1], views[i, 2] + light[2]
        length = np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
        nh = max((normals[i, 0] * hx + normals[i, 1] * hy + normals[i, 2] * hz) / length, 0.0)
        vh = max((views[i, 0] * hx + views[i, 1] * hy + views[i, 2] * hz) / length, 0.0)
        a2 = roughness[i] ** 4
        d = a2 / (np.pi * (nh * nh * (a2 - 1) + 1) ** 2)
        k = (roughness[i] + 1) ** 2 / 8
        g = 1 / ((nv * (1 - k) + k) * (nl * (1 - k) + k))
        out[i] = d * g * (f0 + (1 - f0) * (1 - vh) ** 5) / 4 * nl
    return out


#: How far red, green and blue spread inside skin, decimetres.
SPREAD = (0.040, 0.016, 0.007)


def spread_in_skin(irradiance: F32, skin: F32, pixels_per_dm: float) -> F32:
    """Blurs irradiance (h, w, 3) within the skin (h, w), each colour by its own distance."""
    out = irradiance.copy()
    inside = skin > 0.5
    for c, distance in enumerate(SPREAD):
        sigma = max(0.3, distance * pixels_per_dm)
        weight = cv2.GaussianBlur(skin, (0, 0), sigma)
        blurred = cv2.GaussianBlur(irradiance[..., c] * skin, (0, 0), sigma) / np.maximum(weight, 1e-3)
        out[..., c] = np.where(inside, blurred, irradiance[..., c])
    return out
