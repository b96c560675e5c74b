"""What of an attack can be seen in the final picture: the ground truth that specialists are held against."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ifas.simulator.arrays import F32, Bool
from ifas.simulator.camera import PICTURE, SENSOR, CameraModel, Shot, develop
from ifas.simulator.figure import Box

GLARE = 0.12  # light added by a reflection, as a share of what saturates the sensor, from which it counts


@dataclass(frozen=True)
class Scene:
    """What stands before the camera.

    Attributes:
        radiance: (SENSOR, SENSOR, 3) linear.
        box: x, y, w, h of the face, shares of the frame.
        medium: (SENSOR, SENSOR) where the printed or displayed picture, or the mask, is; None for bona fide.
        specular: (SENSOR, SENSOR) mean radiance of what the medium mirrors.
        smooth: as `radiance`, with the medium's pixel grid or halftone replaced by its local mean.
        border: share of the medium's outline within the frame. rim: share of a mask's edge that faces the camera.
        soft: sigma by which the medium's picture is out of focus, photosites.
        truth: parameters of the attack, for the manifest.
    """

    radiance: F32
    box: Box
    medium: Bool | None = None
    specular: F32 | None = None
    smooth: F32 | None = None
    border: float = 0.0
    rim: float = 0.0
    soft: float = 0.0
    screen_text: bool = False
    holder: str | None = None
    truth: dict[str, object] = field(default_factory=dict)


def _pattern(scene: Scene, model: CameraModel, shot: Shot) -> float:
    """Contrast of the pixel structure in the final picture, before JPEG and without noise.

    The picture is developed with and without the structure. Root mean square over the three colours of what the
    structure changes, less its mean, over the mean of the picture; display values, within the face box.
    """
    if scene.smooth is None or scene.medium is None:
        return 0.0
    x, y, w, h = (round(v * PICTURE) for v in scene.box)
    inside = np.zeros((PICTURE, PICTURE), bool)
    inside[y : y + h, x : x + w] = True
    inside &= scene.medium[1::2, 1::2]
    if inside.sum() < 64:
        return 0.0
    drawn = develop(scene.radiance, model, shot, None)[inside]
    change = drawn - develop(scene.smooth, model, shot, None)[inside]
    change -= change.mean(0)
    return float(np.sqrt(np.mean(np.square(change))) / max(float(drawn.mean()), 1e-3))


def _blur(scene: Scene, shot: Shot) -> float:
    # Motion over a length spreads like a box of that width.
    return math.sqrt(shot.sigma**2 + scene.soft**2 + shot.motion[0] ** 2 / 12) * PICTURE / SENSOR


def _glare(scene: Scene, shot: Shot) -> float:
    if scene.medium is None or scene.specular is None or not scene.medium.any():
        return 0.0
    return float((scene.specular[scene.medium] * shot.gain > GLARE).mean())


def visible(scene: Scene, model: CameraModel, shot: Shot) -> dict[str, object]:
    """The `visible` part of an attack's ground truth.

    - `border`: share of the medium's outline (the edge of the printed or displayed picture) inside the frame;
    - `rim`: share of a mask's edge that faces the camera;
    - `pattern`: contrast of pixel grid, halftone or moire, standard deviation over mean in display values;
    - `blur`: sigma of lens, shake and medium together, pixels of the picture;
    - `glare`: share of the medium that mirrors at least GLARE of white;
    - `screen_text`: at least half of a line of text that the device drew lies inside the frame;
    - `holder`: hand or clamp, where one covers a part of the edge; else None.
    """
    assert scene.radiance.shape[0] == SENSOR
    return {
        "border": round(scene.border, 3),
        "rim": round(scene.rim, 3),
        "pattern": round(_pattern(scene, model, shot), 4),
        "blur": round(_blur(scene, shot), 3),
        "glare": round(_glare(scene, shot), 4),
        "screen_text": scene.screen_text,
        "holder": scene.holder,
    }
