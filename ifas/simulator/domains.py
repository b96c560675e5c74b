"""The capture domains: a camera, its light and what is behind the subject. Adding one is adding a line to DOMAINS."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ifas.simulator.backdrops import Backdrop, hall, home, office, street
from ifas.simulator.camera import CameraModel
from ifas.simulator.light import LightRange


@dataclass(frozen=True)
class Domain:
    """One place. `environment` and `illumination` are the manifest's columns."""

    name: str
    environment: str
    illumination: str
    camera: CameraModel
    light: LightRange
    backdrop: Backdrop


_USUAL = CameraModel(
    name="usual",
    white_balance=(1.0, 1.0),
    white_balance_sd=0.07,
    exposure=(-1.1, 0.35),
    metering=0.1,
    point_spread=(0.5, 2.2),
    shake=0.15,
    glare=0.03,
    haze=(0.0, 0.27),
    vignette=0.09,
    full_well=(1200, 5000),
    read_noise=0.004,
    contrast=(0.8, 1.25),
    lift=(-0.06, 0.06),
    saturation=(0.65, 1.25),
    sharpen=(0.1, 0.8),
    quality=(78, 94),
)


def _camera(name: str, **numbers: Any) -> CameraModel:
    """A camera that differs from the usual one by `numbers`.

    The usual ranges are wide on purpose: exposure, veil, focus and picture styles vary more between two bona fide
    pictures than between a bona fide picture and an attack, or those would give attacks away (see `leak_probe`).
    """
    return replace(_USUAL, name=name, **numbers)


_WEBCAM = _camera("webcam", white_balance=(1.02, 0.96))
_PHONE = _camera("phone", vignette=0.05, glare=0.02, full_well=(4000, 9000), read_noise=0.002, quality=(84, 95))
_LAPTOP = _camera(
    "laptop-camera", white_balance=(1.04, 0.92), full_well=(800, 2500), read_noise=0.006, quality=(74, 90)
)
_FIXED = _camera(
    "kiosk-camera",
    white_balance=(0.93, 0.92),
    exposure=(-0.7, 0.35),
    metering=0.12,
    point_spread=(0.8, 2.2),
    glare=0.05,
    vignette=0.12,
    full_well=(600, 1500),
    read_noise=0.007,
    quality=(70, 86),
)

DOMAINS: dict[str, Domain] = {
    "office": Domain(
        "office",
        "indoor",
        "normal",
        _WEBCAM,
        LightRange(
            azimuth=(5, 55),
            elevation=(10, 50),
            key=(0.8, 1.8),
            sky=(0.6, 1.1),
            softness=(0.12, 0.35),
            warmth=(0.1, 0.9),
            sky_warmth=(-0.1, 0.6),
        ),
        office,
    ),
    "street": Domain(
        "street",
        "outdoor",
        "strong",
        _PHONE,
        LightRange(
            azimuth=(15, 70),
            elevation=(25, 62),
            key=(2.4, 4.2),
            sky=(0.7, 1.2),
            softness=(0.02, 0.07),
            warmth=(0.0, 0.5),
            sky_warmth=(-1.2, -0.5),
        ),
        street,
    ),
    "home": Domain(
        "home",
        "indoor",
        "weak",
        _LAPTOP,
        LightRange(
            azimuth=(0, 80),
            elevation=(0, 60),
            key=(0.5, 1.6),
            sky=(0.4, 0.9),
            softness=(0.08, 0.4),
            warmth=(0.3, 1.2),
            sky_warmth=(-0.2, 0.8),
        ),
        home,
    ),
    "kiosk": Domain(
        "kiosk",
        "indoor",
        "back",
        _FIXED,
        LightRange(
            azimuth=(20, 100),
            elevation=(5, 45),
            key=(0.5, 1.3),
            sky=(0.55, 0.95),
            softness=(0.15, 0.4),
            warmth=(-0.6, 0.2),
            sky_warmth=(-0.4, 0.3),
        ),
        hall,
    ),
}
#: Domains that contain train and dev subjects; the others hold test subjects only.
SOURCE_DOMAINS = ("office", "street", "home")
#: Light of the picture that an attacker prints or shows: taken anywhere, kindly lit.
PHOTO_LIGHT = LightRange(
    azimuth=(0, 50),
    elevation=(10, 45),
    key=(0.7, 2.0),
    sky=(0.8, 1.6),
    softness=(0.1, 0.4),
    warmth=(-0.4, 0.6),
    sky_warmth=(-0.5, 0.4),
)
