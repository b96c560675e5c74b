"""Drawn faces with the visible cues of each spoof type, as PNG bytes, and a manifest over them."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd

from ifas.core.errors import DataError

SIDE = 160
BOX = (50.0, 30.0, 60.0, 75.0)


def draw(kind: str, seed: int, faint: float = 0.0) -> np.ndarray:
    """uint8 RGB (SIDE, SIDE, 3). `faint` in 0..1 makes the cues of an attack weaker."""
    rng = np.random.default_rng([seed, len(kind)])
    plain = kind == "mask"
    face = rng.uniform(0.35, 0.8) * np.array([1.0, 0.78, 0.66])
    image = np.ones((SIDE, SIDE, 3)) * rng.uniform(0.35, 0.7, 3)
    image *= np.linspace(*rng.uniform(0.7, 1.1, 2), SIDE)[None, :, None]
    cv2.rectangle(image, (0, 135), (SIDE, SIDE), tuple(rng.uniform(0.05, 0.6, 3)), -1)
    cv2.rectangle(image, (66, 95), (94, 140), tuple(face), -1)
    tint = face * (np.array([0.75, 1.0, 1.3]) * (1 - faint) + faint) if plain else face
    cv2.ellipse(image, (80, 67), (30, 38), 0, 0, 360, tuple(tint), -1)
    if not plain:
        for x in (62, 98):
            cv2.circle(image, (x, 78), 9, tuple(face * [1.12, 0.8, 0.75]), -1)
    cv2.ellipse(image, (80, 88), (11, 4), 0, 0, 360, tuple(tint * ([0.9, 0.5, 0.5] if not plain else [0.7] * 3)), -1)
    for x in (68, 92):
        cv2.circle(image, (x, 60), 4, (0.06, 0.05, 0.05), -1)
    cv2.ellipse(image, (80, 36), (33, 14), 0, 180, 360, (0.08, 0.06, 0.05), -1)
    image = cv2.GaussianBlur(image, (0, 0), 1.0)
    if plain:
        for x, y in ((72, 45), (88, 47), (80, 72), (64, 72), (97, 74)):
            cv2.circle(image, (x, y), 2, (1.0, 1.0, 1.0), -1)
    if kind == "print":
        image = 0.4 + 0.08 * faint + (0.40 + 0.1 * faint) * image
        image = image.mean(-1, keepdims=True) * 0.5 + image * 0.5
        if rng.random() > faint:
            cv2.rectangle(image, (0, 0), (int(rng.integers(10, 18)), SIDE), (0.97, 0.97, 0.96), -1)
    if kind == "replay":
        y, x = np.mgrid[:SIDE, :SIDE]
        angle = rng.uniform(0.3, 1.2)
        waves = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / rng.uniform(2.4, 2.9))
        image = image * (1 + (0.25 - 0.2 * faint) * waves[..., None])
        if rng.random() > faint:
            cv2.rectangle(image, (SIDE - int(rng.integers(10, 18)), 0), (SIDE, SIDE), (0.02, 0.02, 0.02), -1)
    image = image + rng.normal(0, 0.008, image.shape)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


class DrawnImages:
    """An ImageSource over PNG bytes by row of one shard."""

    def __init__(self, files: list[bytes]) -> None:
        self.files = files

    def read(self, shard: str, row: int) -> bytes:
        if self.files[row] == b"lost":
            raise DataError(f"row {row} of {shard} is lost")
        return self.files[row]


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def dataset(per_kind: int = 8, faint: float = 0.6) -> tuple[pd.DataFrame, DrawnImages]:
    """A manifest and its images: live, print, replay and mask; splits in turn; two domains; every third is faint."""
    rows, files = [], []
    for kind in ("live", "print", "replay", "mask"):
        for i in range(per_kind):
            files.append(png(draw(kind, i, faint if i % 3 == 2 else 0.0)))
            rows.append(
                {
                    "sample_id": f"{len(rows):064x}",
                    "dataset": "drawn",
                    "domain": "far" if i % 4 == 3 else "near",
                    "subject_id": f"{kind}{i}",
                    "media_id": f"{kind}{i}",
                    "track_id": None,
                    "frame_index": None,
                    "split": ("train", "train", "dev", "test")[i % 4],
                    "label": "live" if kind == "live" else "spoof",
                    "spoof_type": kind,
                    "pai_species": {"mask": "mask.rigid3d", "print": "print.a4", "replay": "replay.phone"}.get(
                        kind, kind
                    ),
                    "device": None,
                    "environment": "indoor",
                    "illumination": None,
                    "face_box": list(BOX) if i % 5 else None,
                    "width": SIDE,
                    "height": SIDE,
                    "shard": "shard-00000.parquet",
                    "row": len(rows),
                    "licence": "CC0-1.0",
                    "source": f"{kind}/{i}.png",
                    "synthetic": True,
                    "attack": None,
                    "quality": None,
                    "batch": None,
                    "status": "released",
                }
            )
    return pd.DataFrame(rows), DrawnImages(files)
