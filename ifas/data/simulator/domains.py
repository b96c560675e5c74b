"""The capture domains: a camera, its light and what is behind the subject. Adding one is adding a line to DOMAINS."""

from __future__ import annotations

from dataclasses import dataclass

from ifas.data.simulator.backdrops import Backdrop, hall, office, street
from ifas.data.simulator.camera import CameraModel
from ifas.data.simulator.light import LightRange


@dataclass(frozen=True)
class Domain:
    """One place. `environment` and `illumination` are the manifest's columns."""

    name: str
    environment: str
    illumination: str
    camera: CameraModel
    light: LightRange
    backdrop: Backdrop


_WEBCAM = CameraModel(
    name="webcam",
    white_balance=(1.02, 0.96),
    white_balance_sd=0.05,
    exposure=(-0.35, 0.35),
    metering=0.0,
    point_spread=(0.6, 1.2),
    glare=0.03,
    haze=(0.0, 0.20),
    vignette=0.09,
    full_well=(1200, 4000),
    read_noise=0.004,
    contrast=1.0,
    saturation=1.0,
    sharpen=0.4,
    quality=(80, 92),
)
_PHONE = CameraModel(
    name="phone",
    white_balance=(1.0, 1.0),
    white_balance_sd=0.04,
    exposure=(-0.3, 0.4),
    metering=0.0,
    point_spread=(0.4, 0.9),
    glare=0.02,
    haze=(0.0, 0.15),
    vignette=0.05,
    full_well=(4000, 9000),
    read_noise=0.002,
    contrast=1.1,
    saturation=1.2,
    sharpen=0.6,
    quality=(86, 95),
)
_FIXED = CameraModel(
    name="kiosk-camera",
    white_balance=(0.90, 0.88),
    white_balance_sd=0.03,
    exposure=(-0.3, 0.3),
    metering=0.3,
    point_spread=(0.9, 1.6),
    glare=0.05,
    haze=(0.02, 0.14),
    vignette=0.14,
    full_well=(450, 1100),
    read_noise=0.008,
    contrast=0.95,
    saturation=0.8,
    sharpen=0.3,
    quality=(70, 84),
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
    "kiosk": Domain(
        "kiosk",
        "indoor",
        "back",
        _FIXED,
        LightRange(
            azimuth=(50, 125),
            elevation=(5, 40),
            key=(0.4, 1.1),
            sky=(0.40, 0.75),
            softness=(0.15, 0.4),
            warmth=(-0.6, 0.2),
            sky_warmth=(-0.4, 0.3),
        ),
        hall,
    ),
}
#: Domains that contain train and dev subjects; the others hold test subjects only.
SOURCE_DOMAINS = ("office", "street")
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
