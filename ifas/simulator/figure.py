"""Draws a lit head before a backdrop."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np

from ifas.simulator.arrays import F32, Bool, dot, rgb, unit
from ifas.simulator.framing import bounding_box
from ifas.simulator.heads import EARS, Head, Material, Mesh, body_marks
from ifas.simulator.light import Light, ggx, spread_in_skin
from ifas.simulator.occlusion import shadow
from ifas.simulator.raster import View, rasterise
from ifas.simulator.skin import Paint, paint, relief
from ifas.simulator.topology import surfaces

Box = tuple[float, float, float, float]


class Shell(Protocol):
    """Something worn over the face that brings its own paint."""

    def paint(self, points: F32, rest: F32, marks: F32) -> Paint:
        """Paint of the shell's visible points."""
        ...


@dataclass(frozen=True)
class Figure:
    """A head, and the mesh to draw for it: its own, or one with a shell over the face."""

    head: Head
    mesh: Mesh
    shell: Shell | None = None


@cache
def _face_region() -> Bool:
    """Vertices of the body surface that belong to the face: brow to chin, ear to ear."""
    rest = surfaces()["body"].rest
    return np.asarray((rest[:, 2] > 0.30) & (rest[:, 1] > 6.10) & (rest[:, 1] < 7.95) & (body_marks()[:, EARS] < 0.2))


def face_box(head: Head, view: View) -> Box:
    """x, y, w, h of the face in a picture from `view`, as shares of the picture."""
    return bounding_box(view.project(head.body.points[_face_region()]), view.size)


@dataclass(frozen=True)
class Drawn:
    """A drawn figure: `radiance` (size, size, 3), its `specular` part's mean (size, size), and where the shell is."""

    radiance: F32
    specular: F32
    shell: Bool


def draw(figure: Figure, view: View, light: Light, backdrop: F32) -> F32:
    """Linear radiance (size, size, 3) of the figure before `backdrop` (size, size, 3)."""
    return draw_layers(figure, view, light, backdrop).radiance


def draw_layers(figure: Figure, view: View, light: Light, backdrop: F32) -> Drawn:
    """As `draw`, with what a mask's ground truth needs."""
    head, mesh = figure.head, figure.mesh
    seen = rasterise(view, mesh.points, mesh.triangles, mesh.cut)
    ambient_at_vertices = light.ambient(mesh.openness)
    columns = seen.interpolate(np.concatenate([mesh.values, ambient_at_vertices], axis=1))
    points, rest, marks, ambient = columns[:, :3], columns[:, 6:9], columns[:, 9:14], columns[:, 14:]
    material = mesh.material[seen.triangle]
    towards_eye = unit(view.eye - points)
    normals = unit(columns[:, 3:6])
    normals[dot(normals, towards_eye) < 0] *= -1

    surface = paint(head, material, points, rest, marks)
    if figure.shell is not None:
        worn = np.flatnonzero(material == Material.SHELL)
        surface.put(worn, figure.shell.paint(points[worn], rest[worn], marks[worn]))
    fine = relief(head, rest, normals, surface.bump)

    lit = shadow(
        points + normals * np.float32(0.02), light.towards, mesh.points, mesh.triangles, mesh.cut, light.softness
    )
    smooth_cosine = np.clip(dot(normals, light.towards), 0, 1)
    irradiance = (smooth_cosine * lit)[:, None] * light.key + ambient
    irradiance[material == Material.EYE] *= 0.75
    pixels_per_dm = view.focal / float(np.linalg.norm(view.eye))
    irradiance = spread_in_skin(seen.image(irradiance), seen.image(surface.diffuses), pixels_per_dm)[
        seen.pixels[:, 0], seen.pixels[:, 1]
    ]
    relief_cosine = np.clip(dot(fine, light.towards), 0, 1) - smooth_cosine
    diffuse = surface.albedo / np.pi * (irradiance + 0.6 * (relief_cosine * lit)[:, None] * light.key)

    broad = ggx(fine, towards_eye, light.towards, surface.roughness, 0.04)
    tight = ggx(fine, towards_eye, light.towards, np.clip(surface.roughness * 0.65, 0.1, 1), 0.04)
    facing = dot(fine, towards_eye)
    mirrored = 2 * facing[:, None] * fine - towards_eye
    grazing = 1 - np.clip(facing, 0, 1)
    fresnel = 0.03 + 0.5 * grazing * np.square(np.square(grazing))
    open_sky = np.clip(dot(ambient, rgb(1, 1, 1)) / (light.sky.sum() + 1e-6), 0, 1)
    from_sky = (fresnel * (1 - 0.6 * surface.roughness) * open_sky * 0.35)[:, None] * light.from_sky(mirrored)
    specular = ((broad + 0.35 * tight) * lit)[:, None] * light.key + from_sky

    out = backdrop.astype(np.float32, copy=True)
    shine = specular * surface.gloss[:, None]
    out[seen.pixels[:, 0], seen.pixels[:, 1]] = diffuse + shine
    worn_at = seen.image((material == Material.SHELL).astype(np.float32)) > 0
    return Drawn(out, seen.image(shine.mean(1)), worn_at)
