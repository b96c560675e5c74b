"""A small drawn dataset in the `folder` layout, for tests of the chain: seconds, not faces.

Live: an oval before blobs. Print: a bright sheet edge around it. Replay: a fine grating over it. Mask: a glossy,
colourless oval. Three domains that differ in light; subject-disjoint splits; the third domain holds test data only.
"""

import json
from pathlib import Path

import cv2
import numpy as np

DOMAINS = {"office": 1.0, "street": 1.25, "kiosk": 0.75}
KINDS = ("live", "print", "replay", "mask")
SPECIES = {"live": "live", "print": "print.a4", "replay": "replay.phone", "mask": "mask.rigid3d"}
SPLITS = {"train": 6, "dev": 3, "test": 4}


def draw(rng: np.random.Generator, kind: str, light: float, size: int = 96) -> np.ndarray:
    """One picture, uint8 RGB (size, size, 3)."""
    blobs = rng.uniform(40, 160, (6, 6, 3)).astype(np.float32)
    image = cv2.resize(blobs, (size, size), interpolation=cv2.INTER_CUBIC)
    centre = (int(size * rng.uniform(0.42, 0.58)), int(size * rng.uniform(0.42, 0.58)))
    axes = (int(size * rng.uniform(0.18, 0.24)), int(size * rng.uniform(0.26, 0.33)))
    skin = rng.uniform((120, 80, 60), (220, 170, 140))
    if kind == "mask":
        skin = np.full(3, skin.mean())
    if kind == "print":
        pad = int(size * rng.uniform(0.06, 0.12))
        cv2.rectangle(image, (pad, pad), (size - pad, size - pad), (235, 235, 230), 3)
    cv2.ellipse(image, centre, axes, rng.uniform(-10, 10), 0, 360, tuple(map(float, skin)), -1, cv2.LINE_AA)
    for side in (-1, 1):
        cv2.circle(image, (centre[0] + side * axes[0] // 2, centre[1] - axes[1] // 4), 3, (30, 25, 25), -1, cv2.LINE_AA)
    if kind == "mask":
        cv2.circle(image, (centre[0] - 4, centre[1] - axes[1] // 2), 5, (255, 255, 255), -1, cv2.LINE_AA)
    if kind == "replay":
        y, x = np.mgrid[0:size, 0:size]
        angle, period = rng.uniform(0, np.pi), rng.uniform(3, 5)
        image += 22 * np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period)[..., None]
    image = image * light + rng.normal(0, 3, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def make(root: Path, seed: int = 0) -> Path:
    """Writes the dataset below `root` and returns it."""
    rows = []
    for split, count in SPLITS.items():
        for number in range(count):
            subject = f"{split}{number:02d}"
            for domain, light in DOMAINS.items():
                if domain == "kiosk" and split != "test":
                    continue
                for kind in KINDS:
                    rng = np.random.default_rng([seed, len(rows)])
                    path = root / domain / kind / subject / f"{subject}_{domain}_{kind}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(path), draw(rng, kind, light)[..., ::-1])
                    rows.append(
                        {
                            "path": path.relative_to(root).as_posix(),
                            "domain": domain,
                            "subject_id": subject,
                            "media_id": path.stem,
                            "split": split,
                            "label": "live" if kind == "live" else "spoof",
                            "spoof_type": kind,
                            "pai_species": SPECIES[kind],
                            "device": f"{domain}-camera",
                            "environment": "indoor",
                            "illumination": "normal",
                            "face_box": [24, 16, 48, 64],
                            "width": 96,
                            "height": 96,
                            "licence": "CC0-1.0",
                            "source": "drawn",
                            "synthetic": True,
                            "attack": None if kind == "live" else {"kind": kind},
                        }
                    )
    (root / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "dataset.json").write_text(
        json.dumps({"name": "toy", "licence": "CC0-1.0", "synthetic": True, "description": "drawn"})
    )
    return root
