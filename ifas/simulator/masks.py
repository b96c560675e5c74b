"""3-D mask attacks: one person's face as a rigid shell over another person's head."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ifas.simulator.arrays import F32, dot, smoothstep, unit
from ifas.simulator.figure import Figure
from ifas.simulator.heads import EARS, NOSTRILS, Head, Material, Part, join
from ifas.simulator.raster import View
from ifas.simulator.skin import Paint, paint_skin

#: Material of the shell -> how much of the impersonated face's own colouring it carries.
MATERIALS = {"painted": 0.75, "latex": 0.4, "plain": 0.0}
PLAIN = np.array([0.72, 0.70, 0.66])  # unpainted resin, linear albedo
#: Opening for the eyes on the base head: centre (x, y) and half axes, decimetres.
EYE_HOLE = (0.315, 7.285, 0.215, 0.105)
OVAL_MIDDLE, OVAL_HALF = 7.06, 0.93  # height of the shell's middle and half its height
RIM = 0.035  # width of the bevelled edge, in units of `_extent`


@dataclass(frozen=True)
class MaskShell:
    """What the shell is made of.

    Attributes:
        face: the impersonated head.
        material: a key of MATERIALS.
        roughness, gloss: of the whole shell alike, which skin never is.
        tint: colour error of the paint, linear RGB gains.
        standoff: gap between face and shell, decimetres.
    """

    face: Head
    material: str
    roughness: float
    gloss: float
    tint: F32
    standoff: float

    def paint(self, points: F32, rest: F32, marks: F32) -> Paint:  # noqa: ARG002  (the Shell protocol)
        """Paint of the shell's visible points: the face's colours, faded by the material, evenly glossy."""
        n = np.ones(len(rest), np.float32)
        flat = PLAIN if self.material == "plain" else self.face.person.skin
        detail = paint_skin(self.face, rest, marks).albedo
        albedo = (flat + (detail - flat) * MATERIALS[self.material]) * self.tint
        # The cut edge shows the bare material, darker where it turns away.
        near = smoothstep(RIM, 0.3 * RIM, _extent(rest, marks))
        albedo = albedo + near[:, None] * (PLAIN * 0.55 - albedo) * 0.8
        return Paint(albedo.astype(np.float32), n * self.roughness, n * self.gloss, n * 0, n * 0)

    def truth(self) -> dict[str, object]:
        """Parameters for the manifest."""
        return {
            "material": self.material,
            "roughness": round(self.roughness, 3),
            "gloss": round(self.gloss, 3),
            "standoff_mm": round(self.standoff * 100, 1),
        }


def draw_shell(rng: np.random.Generator, face: Head) -> MaskShell:
    """A mask of `face`."""
    return MaskShell(
        face,
        str(rng.choice(list(MATERIALS))),
        float(rng.uniform(0.28, 0.55)),
        float(rng.uniform(0.25, 1.2)),
        rng.uniform(0.92, 1.06, 3).astype(np.float32),
        float(rng.uniform(0.05, 0.07)),
    )


def _oval(rest: F32) -> F32:
    """Positive within the shell's outline: an oval of the angle about the head's axis and the height."""
    side = np.arctan2(np.abs(rest[:, 0]), np.maximum(rest[:, 2], 0.02)) / 1.12
    high = (rest[:, 1] - OVAL_MIDDLE) / OVAL_HALF
    return np.asarray(0.6 * (1 - (side**4 + high**4) ** 0.25), dtype=np.float32)


def _extent(rest: F32, marks: F32) -> F32:
    """Positive where the shell is: an oval over the face front, without eyes, nostrils and ears."""
    x, y = np.abs(rest[:, 0]), rest[:, 1]
    cx, cy, rx, ry = EYE_HOLE
    around_eyes = 0.2 * (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 - 1)
    limits = (_oval(rest), around_eyes, 0.2 - marks[:, EARS], 0.3 - marks[:, NOSTRILS])
    return np.asarray(np.minimum.reduce(limits), dtype=np.float32)


def wear(wearer: Head, shell: MaskShell) -> Figure:
    """`wearer` with the shell over the face; the face below is pressed back so that it does not come through."""
    body, face = wearer.body, shell.face.body
    rest = body.rest
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    cx, cy, rx, ry = EYE_HOLE
    beside_eyes = ((x - cx) / (rx + 0.015)) ** 2 + ((y - cy) / (ry + 0.015)) ** 2
    press = smoothstep(0.15, 0.5, z) * smoothstep(6.0, 6.2, y) * smoothstep(8.15, 7.95, y)
    press = press * smoothstep(1.0, 1.6, beside_eyes)
    pressed = replace(body, points=(body.points - press[:, None] * np.array([0, 0, 0.2])).astype(np.float32))
    over = Part(
        (face.points + face.normals * shell.standoff).astype(np.float32),
        face.normals,
        rest,
        face.marks,
        body.openness,
        _extent(rest, face.marks),
        body.triangles,
        Material.SHELL,
    )
    kept = (p for p in wearer.parts[1:] if p.material is not Material.MOUTH)
    return Figure(wearer, join((pressed, *kept, over)), shell)


def rim_share(wearer: Head, shell: MaskShell, view: View) -> float:
    """Share of the shell's outer edge that faces the camera and lies within the frame."""
    rest = wearer.body.rest
    edge = (np.abs(_oval(rest)) < RIM) & (rest[:, 2] > 0)
    points, normals = shell.face.body.points[edge], shell.face.body.normals[edge]
    if not len(points):
        return 0.0
    facing = dot(normals, unit((view.eye - points).astype(np.float32))) > 0.05
    place = view.project(points)[:, :2]
    within = ((place > 0) & (place < view.size)).all(axis=1)
    return float((facing & within).mean())
