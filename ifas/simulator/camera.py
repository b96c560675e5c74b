"""The camera that every picture goes through, bona fide or attack: light in, JPEG out.

Exposure, white balance, point spread, veiling glare, vignette, RGGB mosaic, shot and read noise, demosaic, tone
curve, scaling, sharpening, JPEG. A place differs from another by the numbers in its `CameraModel` only.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ifas.simulator.arrays import F32, U8, srgb_encode

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
        point_spread: sigma in photosites; a soft lens or missed focus. shake: share of pictures blurred by motion.
        glare: share of light spread over the frame. haze: veil over the frame.
        full_well: electrons at white; few means noise. read_noise: share of white.
        contrast: slope of the tone curve in the middle. lift: added to all values. saturation: 1 is neutral.
        sharpen: unsharp mask. quality: JPEG.
    """

    name: str
    white_balance: tuple[float, float]
    white_balance_sd: float
    exposure: tuple[float, float]
    metering: float
    point_spread: tuple[float, float]
    shake: float
    glare: float
    haze: tuple[float, float]
    vignette: float
    full_well: tuple[float, float]
    read_noise: float
    contrast: tuple[float, float]
    lift: tuple[float, float]
    saturation: tuple[float, float]
    sharpen: tuple[float, float]
    quality: tuple[int, int]


def _gain(radiance: F32, metering: float) -> float:
    """Brings the 85th percentile of what is metered to 0.55."""
    n = len(radiance)
    thin = radiance[::4, ::4].mean(2)
    centre, frame = np.percentile(thin[n // 16 : 3 * n // 16, n // 16 : 3 * n // 16], 85), np.percentile(thin, 85)
    bright = float(centre) ** (1 - metering) * float(frame) ** metering
    return float(0.55 / max(bright, 1e-4))


def _wide_blur(image: F32) -> F32:
    """A blur over a twentieth of the frame, done on a smaller picture."""
    n = len(image)
    small = cv2.resize(image, (n // 8, n // 8), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), n / 160)
    return np.asarray(cv2.resize(small, (n, n), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _tone(linear: F32) -> F32:
    return srgb_encode(linear / (1 + 0.25 * linear) * 1.25)


def digital_photo(radiance: F32, stops: float, sharpen: float) -> U8:
    """A clean 8-bit RGB picture, `stops` over its metering: what an attacker has before printing or showing it."""
    y = _tone(radiance * np.float32(_gain(radiance, metering=0.0) * 2**stops))
    return np.asarray(_sharpened(y, sharpen) * 255 + 0.5, dtype=np.uint8)


def _sharpened(y: F32, strength: float) -> F32:
    """Unsharp mask on display values."""
    return np.asarray(np.clip(y + strength * (y - cv2.GaussianBlur(y, (0, 0), 1.0)), 0, 1), dtype=np.float32)


def _sensor(x: F32, model: CameraModel, well: float, rng: np.random.Generator | None) -> F32:
    """Mosaic, noise and demosaic of exposed light (n, n, 3)."""
    raw = np.empty(x.shape[:2], np.float32)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        raw[row::2, column::2] = x[row::2, column::2, channel]
    raw = np.clip(raw, 0, 1.2)
    if rng is not None:
        # With hundreds of electrons and more the Poisson law of the photons is normal.
        sd = np.sqrt(raw / np.float32(well) + np.float32(model.read_noise**2))
        raw += sd * rng.standard_normal(raw.shape, dtype=np.float32)
    mosaic = (np.clip(raw, 0, 1) * 65535).astype(np.uint16)
    colour: F32 = np.asarray(cv2.cvtColor(mosaic, cv2.COLOR_BayerBG2RGB), dtype=np.float32)
    return colour / np.float32(65535)


@dataclass(frozen=True)
class Shot:
    """What the camera drew for one picture, so that the same picture can be taken again of another scene.

    Attributes:
        gain: exposure, radiance to sensor. balance: (3,) gains. sigma: point spread, photosites.
        motion: (length in photosites, angle in radians) of camera shake. haze: share of the veil.
        tint: (3,) colour of the veil. well: electrons at white. The rest as in `CameraModel`.
    """

    gain: float
    balance: F32
    sigma: float
    motion: tuple[float, float]
    haze: float
    tint: F32
    well: float
    contrast: float
    lift: float
    saturation: float
    sharpen: float
    quality: int


def draw_shot(radiance: F32, model: CameraModel, rng: np.random.Generator) -> Shot:
    """Meters linear radiance (SENSOR, SENSOR, 3) and draws the rest from the camera's ranges."""
    red, blue = model.white_balance
    balance = np.array([red, 1.0, blue]) * (1 + rng.normal(0, model.white_balance_sd, 3) * [1, 0, 1])
    shaken = rng.random() < model.shake
    return Shot(
        gain=_gain(radiance, model.metering) * float(2 ** rng.uniform(*model.exposure)),
        balance=balance.astype(np.float32),
        sigma=float(np.exp(rng.uniform(*np.log(model.point_spread)))),
        motion=(float(rng.uniform(1.5, 7.0)) if shaken else 0.0, float(rng.uniform(0, np.pi))),
        haze=float(model.haze[0] + (model.haze[1] - model.haze[0]) * rng.random() ** 1.5),
        tint=rng.uniform(0.9, 1.1, 3).astype(np.float32),
        well=float(rng.uniform(*model.full_well)),
        contrast=float(rng.uniform(*model.contrast)),
        lift=float(rng.uniform(*model.lift)),
        saturation=float(rng.uniform(*model.saturation)),
        sharpen=float(rng.uniform(*model.sharpen)),
        quality=int(rng.integers(model.quality[0], model.quality[1] + 1)),
    )


def _shake(x: F32, motion: tuple[float, float]) -> F32:
    length, angle = motion
    if length < 1:
        return x
    n = 2 * int(length / 2 + 1) + 1
    kernel = np.zeros((n, n), np.float32)
    step = np.linspace(-length / 2, length / 2, 4 * n)
    rows, columns = np.rint(n // 2 + step * np.sin(angle)), np.rint(n // 2 + step * np.cos(angle))
    np.add.at(kernel, (rows.astype(int), columns.astype(int)), 1)
    return np.asarray(cv2.filter2D(x, -1, kernel / kernel.sum()), dtype=np.float32)


def develop(radiance: F32, model: CameraModel, shot: Shot, rng: np.random.Generator | None) -> F32:
    """The picture (PICTURE, PICTURE, 3), RGB display values in [0, 1]; free of noise if `rng` is None."""
    x = radiance * (np.float32(shot.gain) * shot.balance)
    x = _shake(np.asarray(cv2.GaussianBlur(x, (0, 0), shot.sigma), dtype=np.float32), shot.motion)
    veil = _wide_blur(x)
    x = x * (1 - model.glare - shot.haze) + model.glare * veil + np.float32(shot.haze) * x.mean() * shot.tint
    axis = np.linspace(-1, 1, len(x), dtype=np.float32) ** 2
    x *= (1 - model.vignette * (axis[:, None] + axis[None]))[..., None]

    y: F32 = _tone(_sensor(x, model, shot.well, rng))
    y = cv2.resize(y, (PICTURE, PICTURE), interpolation=cv2.INTER_AREA)
    grey = (y[..., :1] + y[..., 1:2] + y[..., 2:]) / 3
    y = np.asarray(grey + shot.saturation * (y - grey), dtype=np.float32)
    y = np.asarray(np.clip(0.5 + shot.lift + shot.contrast * (y - 0.5), 0, 1), dtype=np.float32)
    return _sharpened(y, shot.sharpen)


def encode(picture: F32, quality: int) -> bytes:
    """JPEG bytes of RGB display values in [0, 1]."""
    pixels = (picture * 255 + 0.5).astype(np.uint8)
    done, encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return bytes(encoded)
