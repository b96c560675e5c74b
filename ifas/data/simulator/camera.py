"""The camera that every picture goes through, bona fide or attack: light in, JPEG out.

Exposure, white balance, point spread, veiling glare, vignette, RGGB mosaic, shot and read noise, demosaic, tone
curve, scaling, sharpening, JPEG. A place differs from another by the numbers in its `CameraModel` only.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ifas.data.simulator.arrays import F32, U8, srgb_encode

SENSOR = 512  # side of the sensor in photosites
PICTURE = 256  # side of the stored picture in pixels


@dataclass(frozen=True)
class CameraModel:
    """Constants of one camera; ranges are (low, high), drawn per picture.

    Attributes:
        name: the manifest's `device`.
        white_balance: gains of red and blue after correction; 1 is right. `white_balance_sd`: error per picture.
        exposure: error of the automatic exposure, stops.
        metering: 0 meters the centre, 1 the whole frame, so that a bright window darkens the face.
        point_spread: sigma in photosites. glare: share of light spread over the frame. haze: veil over the frame.
        full_well: electrons at white; few means noise. read_noise: share of white.
        contrast: slope of the tone curve in the middle. saturation: 1 is neutral. sharpen: unsharp mask.
        quality: JPEG.
    """

    name: str
    white_balance: tuple[float, float]
    white_balance_sd: float
    exposure: tuple[float, float]
    metering: float
    point_spread: tuple[float, float]
    glare: float
    haze: tuple[float, float]
    vignette: float
    full_well: tuple[float, float]
    read_noise: float
    contrast: float
    saturation: float
    sharpen: float
    quality: tuple[int, int]


def _expose(radiance: F32, metering: float) -> F32:
    """Scales so that the 85th percentile of what is metered comes to 0.55."""
    n = len(radiance)
    thin = radiance[::4, ::4].mean(2)
    centre, frame = np.percentile(thin[n // 16 : 3 * n // 16, n // 16 : 3 * n // 16], 85), np.percentile(thin, 85)
    bright = float(centre) ** (1 - metering) * float(frame) ** metering
    return np.asarray(radiance * np.float32(0.55 / max(bright, 1e-4)), dtype=np.float32)


def _wide_blur(image: F32) -> F32:
    """A blur over a twentieth of the frame, done on a smaller picture."""
    n = len(image)
    small = cv2.resize(image, (n // 8, n // 8), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), n / 160)
    return np.asarray(cv2.resize(small, (n, n), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _tone(linear: F32) -> F32:
    return srgb_encode(linear / (1 + 0.25 * linear) * 1.25)


def digital_photo(radiance: F32) -> U8:
    """A clean 8-bit RGB picture: what an attacker has before printing or showing it."""
    return np.asarray(_tone(_expose(radiance, metering=0.0)) * 255 + 0.5, dtype=np.uint8)


def _sensor(x: F32, model: CameraModel, rng: np.random.Generator) -> F32:
    """Mosaic, noise and demosaic of exposed light (n, n, 3)."""
    raw = np.empty(x.shape[:2], np.float32)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        raw[row::2, column::2] = x[row::2, column::2, channel]
    raw = np.clip(raw, 0, 1.2)
    # With hundreds of electrons and more the Poisson law of the photons is normal.
    well = rng.uniform(*model.full_well)
    sd = np.sqrt(raw / np.float32(well) + np.float32(model.read_noise**2))
    raw += sd * rng.standard_normal(raw.shape, dtype=np.float32)
    mosaic = (np.clip(raw, 0, 1) * 65535).astype(np.uint16)
    colour: F32 = np.asarray(cv2.cvtColor(mosaic, cv2.COLOR_BayerBG2RGB), dtype=np.float32)
    return colour / np.float32(65535)


def take(radiance: F32, model: CameraModel, rng: np.random.Generator) -> bytes:
    """Takes a picture of linear radiance (SENSOR, SENSOR, 3): JPEG bytes, PICTURE pixels square."""
    x = _expose(radiance, model.metering) * np.float32(2 ** rng.uniform(*model.exposure))
    red, blue = model.white_balance
    gains = np.array([red, 1.0, blue]) * (1 + rng.normal(0, model.white_balance_sd, 3) * [1, 0, 1])
    x *= gains.astype(np.float32)
    x = cv2.GaussianBlur(x, (0, 0), rng.uniform(*model.point_spread))
    haze = model.haze[0] + (model.haze[1] - model.haze[0]) * rng.random() ** 2  # mostly a little
    veil = _wide_blur(x)
    x = x * (1 - model.glare - haze) + model.glare * veil + np.float32(haze) * x.mean((0, 1))
    axis = np.linspace(-1, 1, len(x), dtype=np.float32) ** 2
    x *= (1 - model.vignette * (axis[:, None] + axis[None]))[..., None]

    y: F32 = _tone(_sensor(x, model, rng))
    grey = (y[..., :1] + y[..., 1:2] + y[..., 2:]) / 3
    y = np.asarray(grey + model.saturation * (y - grey), dtype=np.float32)
    y = np.asarray(np.clip(0.5 + model.contrast * (y - 0.5), 0, 1), dtype=np.float32)
    y = cv2.resize(y, (PICTURE, PICTURE), interpolation=cv2.INTER_AREA)
    sharp = np.clip(y + model.sharpen * (y - cv2.GaussianBlur(y, (0, 0), 1.0)), 0, 1)
    pixels = (sharp * 255 + 0.5).astype(np.uint8)
    quality = int(rng.integers(model.quality[0], model.quality[1] + 1))
    done, encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return bytes(encoded)
