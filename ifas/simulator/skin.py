"""Procedural colour: skin, lips, brows, beard, eyes, hair and cloth. All of it is painted on the base head.

No textures of people are used. Positions are those of the base head (`rest`), in decimetres, so that a brow sits on
the brow bone of every identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ifas.simulator.arrays import F32, U8, Index, dot, rgb, smoothstep, unit
from ifas.simulator.heads import (
    EARS,
    EYELIDS,
    LASHES,
    LIPS,
    NOSTRILS,
    Head,
    Material,
    hairline,
    shirt_line,
)


@dataclass
class Paint:
    """Surface properties of the visible points.

    Attributes:
        albedo: (m, 3) linear diffuse reflectance.
        roughness: (m,) GGX roughness.
        gloss: (m,) weight of the specular lobe.
        bump: (m,) strength of the fine relief.
        diffuses: (m,) True where light spreads below the surface (bare skin).
    """

    albedo: F32
    roughness: F32
    gloss: F32
    bump: F32
    diffuses: F32

    def put(self, at: Index, part: Paint) -> None:
        """Writes `part` to the rows `at`."""
        for name in ("albedo", "roughness", "gloss", "bump", "diffuses"):
            getattr(self, name)[at] = getattr(part, name)


def _mix(a: F32, b: F32, share: F32) -> F32:
    share = share[:, None]
    return np.asarray(a * (1 - share) + b * share, dtype=np.float32)


def _blob(x: F32, y: F32, x0: float, y0: float, rx: float, ry: float) -> F32:
    return np.asarray(np.exp(-(((x - x0) / rx) ** 2) - ((y - y0) / ry) ** 2), dtype=np.float32)


def _brows(head: Head, x: F32, y: F32, z: F32) -> F32:
    male = head.person.male > 0.5
    arc = 7.495 + 0.075 * np.sin(np.clip((x - 0.10) / 0.50, 0, 1) * 2.6) - 0.03 * smoothstep(0.45, 0.62, x)
    thickness = 0.055 * (1 - 0.6 * smoothstep(0.35, 0.62, x)) * (1.15 if male else 0.8)
    inside = np.clip(1.25 - np.abs(y - arc) / thickness, 0, 1)
    inside = inside * smoothstep(0.07, 0.14, x) * smoothstep(0.64, 0.5, x) * (z > 0.6)
    strands = head.noise(np.stack([x * 26 - y * 10, y * 5, z * 3], axis=1), 1.0, 2)
    return np.asarray(inside * np.clip(0.9 + 0.9 * strands, 0, 1), dtype=np.float32)


def _cloth(head: Head, rest: F32, fine: F32) -> F32:
    """Albedo of the shirt: weave, folds, and stripes or checks."""
    weave = 0.16 * np.sin(rest[:, 0] * 150) * np.sin(rest[:, 1] * 150) + 0.14 * head.noise(rest, 45.0, 2)
    folds = 0.35 * head.noise(rest, (3.0, 0.9, 2.2), 3)
    base = head.person.shirt * np.clip(1 + weave + folds, 0.3, 1.8)[:, None]
    if head.person.pattern == "plain":
        return np.asarray(base, dtype=np.float32)
    bars = np.sin(rest[:, 1] * 24 + 0.4 * fine) > 0.2
    if head.person.pattern == "check":
        bars = bars ^ (np.sin(rest[:, 0] * 20) > 0.2)
    return np.asarray(np.where(bars[:, None], base, base * 0.45 + 0.12), dtype=np.float32)


def paint_skin(head: Head, rest: F32, marks: F32) -> Paint:
    """Skin, and the shirt over the torso, at points (m, 3) with marks (m, 5)."""
    person, noise = head.person, head.noise
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    lips = marks[:, LIPS]
    blotches, fine = noise(rest, 2.2, 3), noise(rest, 14.0, 3)
    albedo = person.skin * (1 + 0.10 * blotches + 0.10 * fine)[:, None]

    nose_and_cheeks = 0.8 * _blob(x, y, 0.62, 6.95, 0.3, 0.28) * (z > 0.6)
    nose_and_cheeks += 0.8 * _blob(x, y, 0, 6.95, 0.2, 0.18) * (z > 1.2)
    red = np.clip((nose_and_cheeks + 0.5 * marks[:, EARS]) * (1 + blotches), 0, 1)
    albedo *= 1 - red[:, None] * rgb(0.02, 0.20, 0.17) * (1 - 0.5 * person.tone)
    shade = _blob(x, y, 0.33, 7.10, 0.2, 0.09) * (z > 0.8) + 0.5 * marks[:, EYELIDS]
    albedo *= 1 - shade[:, None] * rgb(0.16, 0.22, 0.14) * (0.5 + 0.8 * person.age)
    albedo = _mix(albedo, person.lips * (1 + 0.2 * fine)[:, None], lips)
    spots = np.clip((noise(rest, 9.0) - 0.62) * 6, 0, 0.6) * (0.25 + person.age)
    albedo *= 1 - np.clip(spots, 0, 0.6)[:, None] * rgb(0.35, 0.5, 0.55)
    albedo = _mix(albedo, np.minimum(person.hair_colour * 0.7, 0.16), 0.8 * _brows(head, x, y, z))
    albedo *= 1 - 0.85 * marks[:, LASHES : LASHES + 1]
    roughness = 0.54 - 0.14 * lips

    if person.beard:
        jaw = smoothstep(7.05, 6.6, y - 0.4 * smoothstep(0.5, 0.9, x)) * (z > 0) * smoothstep(5.95, 6.15, y)
        stubble = jaw * (1 - lips) * np.clip(0.6 + 0.55 * noise(rest, 70.0, 2) + 0.25 * blotches, 0, 1) * person.beard
        albedo = _mix(albedo, person.hair_colour * 1.2, stubble)
        roughness += 0.2 * stubble

    bald = person.hair == "bald"
    scalp = smoothstep(-0.06, 0.12, hairline(rest, person.recede) + 0.06 * fine)
    scalp = scalp * (0.35 if bald else 0.9) * (1 - marks[:, EARS])
    albedo = _mix(albedo, albedo * 0.85 if bald else person.hair_colour * 0.9, scalp)
    albedo *= 1 - 0.8 * marks[:, NOSTRILS : NOSTRILS + 1]

    shirt = smoothstep(0, 0.03, shirt_line(rest))
    albedo = _mix(albedo, _cloth(head, rest, fine), shirt)
    return Paint(
        np.asarray(albedo, dtype=np.float32),
        np.asarray(roughness + 0.4 * shirt, dtype=np.float32),
        np.asarray(person.oil * 0.85 * (1 - 0.95 * shirt) * (1 - 0.6 * scalp), dtype=np.float32),
        np.full(len(rest), 0.0022 * (1 + 1.2 * person.age), np.float32),
        (shirt_line(rest) < 0).astype(np.float32),
    )


def _flat(n: int, albedo: F32, roughness: float, gloss: float, bump: float = 0.0) -> Paint:
    ones = np.ones(n, np.float32)
    return Paint(albedo.astype(np.float32), ones * roughness, ones * gloss, ones * bump, ones * 0)


def _paint_eyes(head: Head, points: F32) -> Paint:
    """White, iris and pupil by the angle from the gaze, which is straight ahead."""
    centre = head.eye * np.array([1, 1, 1], np.float32)
    d = points - np.where(points[:, :1] > 0, centre, centre * np.array([-1, 1, 1]))
    d = unit(d.astype(np.float32))
    angle = np.arccos(np.clip(d[:, 2], -1, 1))
    white = rgb(0.80, 0.74, 0.70) * (1 - 0.25 * smoothstep(0.6, 1.1, angle)[:, None] * rgb(0.2, 1, 1))
    around = np.arctan2(d[:, 1], d[:, 0])
    fibres = head.noise(np.stack([np.cos(around) * 6, np.sin(around) * 6, angle * 3], 1), 3.0, 2)
    iris = head.person.iris * (1 + 0.7 * fibres)[:, None] * (1 - 0.6 * smoothstep(0.38, 0.5, angle))[:, None]
    albedo = _mix(white, iris, smoothstep(0.53, 0.47, angle))
    albedo = _mix(albedo, np.full(3, 0.004, np.float32), smoothstep(0.21, 0.18, angle))
    return _flat(len(points), albedo, 0.16, 1.4)


def _paint_hair(head: Head, rest: F32) -> Paint:
    around = np.arctan2(rest[:, 0], rest[:, 2] + 0.1)
    locks = head.noise(np.stack([around * 9, rest[:, 1] * 1.1, rest[:, 2] * 0.9], 1), 1.0, 2)
    strands = head.noise(np.stack([around * 55 + 2 * locks, rest[:, 1] * 2.5, rest[:, 2] * 2.5], 1), 1.0, 3)
    albedo = head.person.hair_colour * np.clip(1 + 0.5 * locks + 1.1 * strands, 0.15, 3)[:, None]
    return _flat(len(rest), albedo, 0.5, 0.22, 0.006)


def _paint_mouth(rest: F32) -> Paint:
    tongue = (np.abs(rest[:, :1]) < 0.26) & (rest[:, 2:] < 0.95)
    return _flat(len(rest), np.where(tongue, [[0.35, 0.12, 0.10]], [[0.60, 0.55, 0.45]]), 0.3, 0.8)


def paint(head: Head, material: U8, points: F32, rest: F32, marks: F32) -> Paint:
    """Paint of the visible points, each by its material. SHELL is left to the mask that brings it."""
    n = len(points)
    out = _flat(n, np.full((n, 3), 0.5), 0.5, 0.0)
    for which in Material:
        at = np.flatnonzero(material == which)
        if not len(at) or which is Material.SHELL:
            continue
        if which is Material.SKIN:
            part = paint_skin(head, rest[at], marks[at])
        elif which is Material.EYE:
            part = _paint_eyes(head, points[at])
        elif which is Material.MOUTH:
            part = _paint_mouth(rest[at])
        else:
            part = _paint_hair(head, rest[at])
        out.put(at, part)
    return out


def relief(head: Head, rest: F32, normals: F32, strength: F32) -> F32:
    """Normals bent by fine noise: pores on skin, strands on hair. (m, 3), unit length."""
    step = 0.004
    here = head.noise(rest, 26.0, 2)
    slope = np.stack([head.noise(rest + np.eye(3, dtype=np.float32)[k] * step, 26.0, 2) - here for k in range(3)], 1)
    slope = (slope / step).astype(np.float32)
    slope -= normals * dot(normals, slope)[:, None]
    return unit((normals - slope * strength[:, None]).astype(np.float32))
