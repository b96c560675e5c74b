"""From a person to a drawable head: smooth vertices, hair, eyes, teeth, and what occludes the sky."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np
from scipy.spatial import cKDTree

from ifas.simulator.arrays import F32, I32, U8, smoothstep
from ifas.simulator.headpack import head_pack
from ifas.simulator.identity import Person, make_person
from ifas.simulator.noise import Noise
from ifas.simulator.occlusion import DIRECTIONS, openness
from ifas.simulator.topology import Surface, compact, surfaces, vertex_normals


class Material(IntEnum):
    """What a triangle is made of."""

    SKIN = 0
    EYE = 1
    MOUTH = 2
    HAIR = 3
    SHELL = 4


#: Columns of `Part.marks`.
LIPS, EYELIDS, EARS, NOSTRILS, LASHES = range(5)
HAIR_DEPTH = {"buzz": 0.025, "short": 0.12, "medium": 0.20, "long": 0.15}  # decimetres


@dataclass(frozen=True)
class Part:
    """One mesh of one material, per vertex.

    Attributes:
        points, normals: (n, 3) decimetres, origin between the eyes.
        rest: (n, 3) place on the base head: paint and noise live there, so they stick to the skin.
        marks: (n, 5) lips, eyelids, ears, nostrils, lash line, each 0 to 1.
        openness: (n, 14) share of light let in from each ambient direction.
        cut: (n,) the surface exists where this is not negative.
        triangles: (m, 3).
    """

    points: F32
    normals: F32
    rest: F32
    marks: F32
    openness: F32
    cut: F32
    triangles: I32
    material: Material


@dataclass(frozen=True)
class Mesh:
    """All parts of a head joined. `values` are the per-vertex columns points, normals, rest and marks."""

    points: F32
    values: F32
    openness: F32
    cut: F32
    triangles: I32
    material: U8


@dataclass(frozen=True)
class Head:
    """One person's head, ready to be drawn."""

    person: Person
    parts: tuple[Part, ...]
    mesh: Mesh
    noise: Noise
    eye: F32  # centre of the left eye; the right one is its mirror image

    @property
    def body(self) -> Part:
        """Skin of head and shoulders with the shirt."""
        return self.parts[0]


def hairline(rest: F32, recede: float) -> F32:
    """Height above the hairline at `rest` (n, 3), decimetres: positive where hair grows."""
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    line = np.interp(
        z,
        [-1.2, -0.5, -0.15, 0.05, 0.30, 0.5, 0.75, 0.95, 1.4],
        [6.45, 6.6, 6.85, 7.3, 7.35, 7.6, 7.9, 8.0 + recede, 8.0 + recede],
    )
    peak = 0.10 * np.exp(-((x / 0.25) ** 2)) * (z > 0.9)
    temples = recede * smoothstep(0.5, 0.9, z) * smoothstep(0.2, 0.6, x)
    return np.asarray(y - line - peak - temples, dtype=np.float32)


def shirt_line(rest: F32) -> F32:
    """Positive on the part of the torso that a T-shirt covers, zero at its collar."""
    x, y, z = rest[:, 0], rest[:, 1], rest[:, 2]
    radius = np.hypot(x * 0.95, z + 0.05)
    shoulder = np.where((y < 5.86) | ((y < 6.2) & (z < -0.1)), radius - 0.80 - 0.25 * (y - 5.9), -9)
    return np.asarray(np.maximum(5.50 - 0.10 * z - y, shoulder), dtype=np.float32)


@cache
def body_marks() -> F32:
    """`Part.marks` of the body surface, the same for everyone: (n, 5)."""
    pack, body = head_pack(), surfaces()["body"]
    uv = body.smooth(pack.uv)
    distance, _ = cKDTree(pack.lash_line).query(body.rest, distance_upper_bound=0.08)
    lash = np.exp(-((np.minimum(distance, 0.08) / 0.022) ** 2))
    columns = [pack.mask_at(n, uv) for n in ("lips", "eyelids", "ears", "inside_mouth")]
    return np.stack([*columns, lash], axis=1).astype(np.float32)


def join(parts: tuple[Part, ...]) -> Mesh:
    """One mesh out of several parts."""
    starts = np.cumsum([0, *(len(p.points) for p in parts)])
    values = [np.concatenate([p.points, p.normals, p.rest, p.marks], axis=1) for p in parts]
    return Mesh(
        np.concatenate([p.points for p in parts]),
        np.concatenate(values),
        np.concatenate([p.openness for p in parts]),
        np.concatenate([p.cut for p in parts]),
        np.concatenate([p.triangles + s for p, s in zip(parts, starts, strict=False)]).astype(np.int32),
        np.concatenate([np.full(len(p.triangles), p.material, np.uint8) for p in parts]),
    )


def _plain(surface: Surface, coarse: F32, material: Material, light: F32) -> Part:
    """Eyes and mouth: no marks, and one openness for all vertices."""
    n = len(surface.rest)
    points = surface.smooth(coarse)
    return Part(
        points,
        vertex_normals(points, surface.triangles),
        surface.rest,
        np.zeros((n, 5), np.float32),
        np.tile(light, (n, 1)),
        np.ones(n, np.float32),
        surface.triangles,
        material,
    )


def _hair(person: Person, body: Part, noise: Noise) -> Part:
    """Hair as the scalp lifted along its normals; strands fray its edge."""
    above = hairline(body.rest, person.recede)
    grows = (above > -0.12) & (body.marks[:, EARS] < 0.3)
    used, triangles = compact(body.triangles[grows[body.triangles].all(axis=1)])
    rest, above = body.rest[used], above[used]
    around = np.arctan2(rest[:, 0], rest[:, 2] + 0.1)
    strands = noise(np.stack([around * 11, rest[:, 1] * 2.6, rest[:, 2] * 2.6], 1), 1.0, 3)
    fray = noise(np.stack([around * 46, rest[:, 1] * 6, rest[:, 2] * 6], 1), 1.0, 2)
    # Thin at the hairline, so that the hair grows out of the scalp instead of sitting on it like a cap.
    lift = HAIR_DEPTH[person.hair] * smoothstep(-0.04, 0.55, above) * (1 + 0.4 * strands)
    lift = 0.004 + lift + 0.05 * smoothstep(0.2, 0.8, above) * noise(rest, 2.2, 3)
    points = (body.points[used] + body.normals[used] * lift[:, None]).astype(np.float32)
    return Part(
        points,
        vertex_normals(points, triangles),
        rest,
        np.zeros((len(used), 5), np.float32),
        body.openness[used],
        (above + 0.14 * fray - 0.01).astype(np.float32),
        triangles,
        Material.HAIR,
    )


def _curtain(coarse: F32, noise: Noise, light: F32) -> Part:
    """Long hair that falls behind the ears: three nested sheets, as the strips of one leave slits between them."""
    surface = surfaces()["curtain"]
    sheet = surface.smooth(coarse)
    nested = [sheet * np.array([k, 1, (1 + k) / 2], np.float32) for k in (1.0, 0.86, 0.72)]
    rest, points = np.tile(surface.rest, (3, 1)), np.concatenate(nested)
    triangles = np.concatenate([surface.triangles + k * len(sheet) for k in range(3)]).astype(np.int32)
    normals = vertex_normals(points, triangles)
    around = np.arctan2(rest[:, 0], rest[:, 2])
    strands = noise(np.stack([around * 12, rest[:, 1] * 0.9, rest[:, 2] * 1.5], 1), 1.0, 3)
    points = (points + normals * (0.06 * strands - 0.02)[:, None]).astype(np.float32)
    ends = rest[:, 1] - 4.75 + 0.3 * noise(np.stack([around * 22, around, around], 1), 1.0, 2)
    n = len(rest)
    return Part(
        points,
        vertex_normals(points, triangles),
        rest,
        np.zeros((n, 5), np.float32),
        np.tile(light, (n, 1)),
        ends.astype(np.float32),
        triangles,
        Material.HAIR,
    )


def build_head(seed: int, subject: int) -> Head:
    """The head of subject `subject` of population `seed`."""
    pack, surface = head_pack(), surfaces()
    person = make_person(seed, subject)
    noise = Noise(np.random.default_rng([seed, subject, 2]))
    coarse = pack.base.copy()
    for target, weight in person.morphs:
        pack.add(coarse, target, weight)
    eyes = coarse[np.unique(pack.groups["eyes"])]
    left, right = eyes[eyes[:, 0] > 0].mean(0), eyes[eyes[:, 0] <= 0].mean(0)
    middle = (left + right) / 2
    coarse -= middle

    smooth = surface["body"]
    points = smooth.smooth(coarse)
    normals = vertex_normals(points, smooth.triangles)
    cloth = 0.06 * smoothstep(0, 0.10, shirt_line(smooth.rest))
    open_coarse = openness(coarse, pack.groups["body"])
    body = Part(
        (points + normals * cloth[:, None]).astype(np.float32),
        normals,
        smooth.rest,
        body_marks(),
        smooth.smooth(open_coarse),
        np.ones(len(points), np.float32),
        smooth.triangles,
        Material.SKIN,
    )
    typical = body.openness.mean(0)
    parts = [body]
    if person.hair != "bald":
        parts.append(_hair(person, body, noise))
    if person.hair == "long":
        parts.append(_curtain(coarse, noise, typical * 0.75))
    parts.append(_plain(surface["eyes"], coarse, Material.EYE, typical * 0.75))
    parts.append(_plain(surface["mouth"], coarse, Material.MOUTH, typical * 0.25))
    assert len(typical) == len(DIRECTIONS)
    return Head(person, tuple(parts), join(tuple(parts)), noise, (left - middle).astype(np.float32))
