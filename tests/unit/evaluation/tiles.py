"""A small drawn dataset in memory, and a judge that measures brightness: the brighter, the more bona fide."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from ifas.core.claims import Cue
from ifas.core.config import EvaluateConfig, ProtocolConfig, RobustnessConfig
from ifas.core.errors import CorruptShardError
from ifas.core.taxonomy import SPOOF_TYPES
from ifas.faces.face import Face

SPECIES = ("live", "live", "print.a4", "replay.phone", "mask.rigid3d")
CUES = {
    "margin": Cue("margin", "a bright edge runs beside the head", ("bright edge",), frozenset({"print"})),
    "pattern": Cue("pattern", "a regular pattern covers it", ("regular pattern",), frozenset({"replay"})),
}
PROTOCOL = ProtocolConfig(source_domains=("office", "street"), target_domains=("kiosk",))
CONFIG = EvaluateConfig(bootstrap=60, batch=7, gallery=12, robustness=RobustnessConfig(images=0))
#: With handled images. A halved tile is smaller than an image may be.
TRYING = CONFIG.model_copy(
    update={"robustness": RobustnessConfig(handlings=("jpeg50", "halved", "letterboxed", "bordered"), images=3)}
)


@dataclass
class Pictures:
    """Image bytes by (shard, row)."""

    shards: dict[str, list[bytes]] = field(default_factory=dict)
    corrupt: set[str] = field(default_factory=set)

    def read(self, shard: str, row: int) -> bytes:
        if shard in self.corrupt:
            raise CorruptShardError(f"shard {shard} does not match its hash")
        return self.shards[shard][row]


class Said(NamedTuple):
    """An answer of `BrightnessJudge`."""

    text: str
    spoof_type: str
    confidence: float | None


class BrightnessJudge:
    """p(bona fide) = mean brightness; attacks are explained by the dominant colour."""

    def __init__(self) -> None:
        self.explained: list[bool] = []

    def find(self, picture: np.ndarray) -> Face:
        return Face.whole(picture)

    def judge(self, faces: Sequence[Face]) -> np.ndarray:
        return np.array([face.picture.mean() / 255 for face in faces], dtype=np.float32)

    def explain(self, faces: Sequence[Face], verdicts: Sequence[bool]) -> list[Said]:
        self.explained += verdicts
        media = (("a sheet of paper", "print"), ("a phone screen", "replay"), ("a mask", "mask"))
        answers = []
        for face, accepted in zip(faces, verdicts, strict=True):
            words, kind = media[int(face.picture.mean((0, 1)).argmax())]
            text = f"The face is on {words}, not skin. A bright edge runs beside it."
            answers.append(Said("A real person in even light.", "live", None) if accepted else Said(text, kind, 0.75))
        return answers


def draw(rng: np.random.Generator, species: str, brightness: float) -> bytes:
    """A noisy tile of a given mean brightness whose strongest channel tells the spoof type."""
    tint = {"print": 0, "replay": 1, "mask": 2}.get(species.split(".")[0])
    image = rng.normal(brightness * 255, 12, (48, 40, 3))
    if tint is not None:
        image[..., tint] += 14
    buffer = io.BytesIO()
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def make_dataset(subjects: int = 6, seed: int = 0) -> tuple[pd.DataFrame, Pictures]:
    """Manifest and pictures: three domains, train/dev/test by subject, five pictures of each subject."""
    rng = np.random.default_rng(seed)
    # Margins are measured on prints, and patterns on replays.
    sure = {kind: {"margin": 0.9 * (kind == "print"), "pattern": 0.9 * (kind == "replay")} for kind in SPOOF_TYPES}
    rows, pictures = [], Pictures()
    for domain in ("office", "street", "kiosk"):
        shard = f"{domain}.parquet"
        pictures.shards[shard] = []
        for s in range(3 * subjects):
            for k, species in enumerate(SPECIES):
                mean = 0.62 if species == "live" else 0.45 if domain != "kiosk" else 0.5
                data = draw(rng, species, float(np.clip(rng.normal(mean, 0.08), 0.1, 0.9)))
                rows.append(
                    {
                        "sample_id": hashlib.sha256(data).hexdigest(),
                        "dataset": "tiles",
                        "domain": domain,
                        "split": ("train", "dev", "test")[s % 3],
                        "subject_id": f"{domain}-{s:02d}",
                        "media_id": f"{domain}-{s:02d}-{k}",
                        "track_id": None,
                        "label": "live" if species == "live" else "spoof",
                        "spoof_type": species.split(".")[0],
                        "pai_species": species,
                        "device": ("cam-a", "cam-b", None)[s % 3 if domain == "office" else 0],
                        "illumination": "normal" if s % 2 else "dark",
                        "synthetic": True,
                        "batch": None,
                        "status": "released",
                        "face_box": None,
                        "evidence": json.dumps({"specialists": sure[species.split(".")[0]]}),
                        "shard": shard,
                        "row": len(pictures.shards[shard]),
                    }
                )
                pictures.shards[shard].append(data)
    return pd.DataFrame(rows), pictures
