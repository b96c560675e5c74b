"""Fingers or a clamp at the edge of a sheet or a device, as the camera sees them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ifas.simulator.arrays import F32
from ifas.simulator.identity import DARK, FAIR
from ifas.simulator.light import Light


@dataclass(frozen=True)
class Holder:
    """`kind`: hand or clamp. `colour` (size, size, 3) radiance, `cover` (size, size) 0 to 1."""

    kind: str
    colour: F32
    cover: F32


MARGIN = 24  # photosites that a place of hold keeps from the frame's edge


def _capsule(size: int, tip: F32, root: F32, radius: float) -> tuple[F32, F32, F32]:
    """Cover (size, size) of a finger from `root` to its round `tip`; across (-1 to 1) and along (0 at the tip)."""
    axis = root - tip
    length = float(np.linalg.norm(axis))
    axis = axis / length
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) + np.float32(0.5)
    dx, dy = x - tip[0], y - tip[1]
    along = np.clip(dx * axis[0] + dy * axis[1], 0, length)
    ex, ey = dx - along * axis[0], dy - along * axis[1]
    across = (dx * -axis[1] + dy * axis[0]) / radius
    cover = np.clip(radius - np.hypot(ex, ey) + 0.5, 0, 1)
    return cover.astype(np.float32), across.astype(np.float32), along.astype(np.float32)


def _finger(rng: np.random.Generator, light: Light, skin: F32, across: F32, along: F32, radius: float) -> F32:
    """Radiance of a finger: a cylinder, wrinkled at the joint, with a nail at the tip."""
    turn = np.clip(across, -0.98, 0.98)
    facing = np.sqrt(1 - turn * turn)
    lit = np.clip(0.65 * facing * max(float(light.towards[2]), 0.15) + 0.35 * turn * float(light.towards[0]), 0.03, 1)
    nail = ((across / 0.62) ** 2 + ((along / radius - 0.15) / 0.75) ** 2 < 1) & (rng.random() < 0.6)
    joint = (
        1
        - 0.22 * np.exp(-(((along / radius - 2.1) / 0.12) ** 2))
        - 0.15 * np.exp(-(((along / radius - 2.5) / 0.1) ** 2))
    )
    albedo = np.where(nail[..., None], skin * np.float32(1.25) + np.float32(0.03), skin * joint[..., None])
    irradiance = lit[..., None] * light.key + (0.35 + 0.65 * facing[..., None]) * light.sky
    return np.asarray(albedo * irradiance / np.pi, dtype=np.float32)


def hold(rng: np.random.Generator, outline: F32, light: Light, size: int) -> Holder | None:
    """A hand or clamp at the medium's edge, or None if no edge of the medium is in view.

    Args:
        outline: (n, 2) the medium's edge in the frame, photosites, the same number of points on each side.
    """
    n = len(outline)
    within = ((outline > MARGIN) & (outline < size - MARGIN)).all(axis=1)
    middle = outline.mean(0)
    side = np.arange(n) * 4 // n
    # From the sides and from below, where hands come from; not from the top.
    spots = np.flatnonzero(within & (side != 0))
    if not len(spots):
        return None
    at = int(rng.choice(spots))
    edge = outline[min(at + 1, n - 1)] - outline[max(at - 1, 0)]
    along = edge / max(float(np.linalg.norm(edge)), 1e-6)
    out = np.array([along[1], -along[0]])
    if float(out @ (outline[at] - middle)) < 0:
        out = -out
    radius = float(rng.uniform(0.036, 0.052)) * size
    if rng.random() < 0.25:
        return _clamp(rng, outline[at], along, out, light, size)
    skin = (FAIR + (DARK - FAIR) * rng.uniform(0, 1)).astype(np.float32)
    colour, cover = np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32)
    lean = float(rng.uniform(-0.5, 0.5))
    for k in range(int(rng.integers(1, 4))):
        reach = float(rng.uniform(0.7, 1.7)) * radius
        tip = outline[at] + along * (k * 2.05 * radius) - out * reach
        root = tip + (out + along * lean) * size
        one, across, far = _capsule(size, tip, root, radius * (1 - 0.06 * k))
        drawn = _finger(rng, light, skin, across, far, radius)
        colour += one[..., None] * (drawn - colour)
        cover = np.maximum(cover, one)
    return Holder("hand", colour, cover)


def _clamp(rng: np.random.Generator, at: F32, along: F32, out: F32, light: Light, size: int) -> Holder:
    """A stand's jaw: a dark or metal block over the edge."""
    half, depth = float(rng.uniform(0.05, 0.09)) * size, float(rng.uniform(0.03, 0.05)) * size
    corners = [at + along * a * half + out * b for a, b in ((-1, -depth), (1, -depth), (1, 3 * depth), (-1, 3 * depth))]
    cover = np.zeros((size, size), np.float32)
    cv2.fillPoly(cover, [np.rint(np.array(corners) * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    grey = np.float32(rng.choice((0.03, 0.08, 0.3)))
    ramp = np.linspace(1.25, 0.75, size, dtype=np.float32)[:, None, None]
    albedo = np.full((size, size, 3), grey, np.float32) * ramp
    irradiance = light.key * np.float32(max(float(light.towards[2]), 0.1)) + light.sky
    colour = np.asarray(albedo * irradiance / np.pi, dtype=np.float32)
    return Holder("clamp", colour, np.asarray(cv2.GaussianBlur(cover, (0, 0), 0.7), dtype=np.float32))


def lay_over(image: F32, layer: Holder) -> F32:
    """`image` with the holder on top, and its soft shadow beside it."""
    colour, cover = layer.colour, layer.cover
    shadow = cv2.GaussianBlur(cv2.resize(cover, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA), (0, 0), 3)
    shade = cv2.resize(shadow, cover.shape[::-1])
    out = image * (1 - 0.45 * shade)[..., None]
    return np.asarray(out + cover[..., None] * (colour - out), dtype=np.float32)
