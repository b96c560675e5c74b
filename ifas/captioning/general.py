"""General captions of a whole manifest: C_G on every picture, shard by shard, in this process or on a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ifas.captioning.measure import FEATURES
from ifas.captioning.parts import local_parts, shards_of
from ifas.captioning.protocol import Caption, Captioner
from ifas.captioning.scene import Scene
from ifas.captioning.specialists import Measurement
from ifas.compute.connection import of_cluster
from ifas.core.errors import DataError
from ifas.core.manifest import ImageSource
from ifas.core.progress import Progress
from ifas.faces.finder import Finder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from ifas.captioning.view import Box
    from ifas.core.config import CaptionConfig


@dataclass(frozen=True)
class General:
    """What the first pass over a manifest found.

    Attributes:
        captions: of each row; None where its picture was refused.
        drawn: further captions of each attack.
        seen: what the specialists measured on each row's picture, by name.
        boxes: of the face in each row's picture.
        unjudged: why no face of a row can be judged, a key of `core.errors.FACE_REASONS`; None where one can.
        scenes: words of each row's scene.
        features: measurements and traces of each row, float32 (rows, FEATURES).
        refused: `sample_id` of each refused picture, and `why`.
    """

    captions: list[Caption | None]
    drawn: list[tuple[str, ...]]
    seen: list[dict[str, Measurement]]
    boxes: list[Box]
    unjudged: list[str | None]
    scenes: list[Scene]
    features: npt.NDArray[np.float32]
    refused: list[dict[str, str]]


def general_captions(
    manifest: pd.DataFrame,
    images: ImageSource,
    captioner: Captioner,
    config: CaptionConfig,
    *,
    folder: Path,
    uri: str = "",
    finder: Finder | None = None,
) -> General:
    """Captions and measures every picture of a manifest.

    Args:
        finder: of faces; None keeps the boxes of the dataset.
        folder: where finished shards are kept and found again.
        uri: where actors' shards are kept as well, so that they survive this machine; empty: nowhere.

    Raises:
        CorruptShardError: a shard is damaged.
        DataError: no picture can be decoded.
    """
    import numpy as np

    progress = Progress("caption", total=len(manifest), unit="images")
    captions: list[Caption | None] = [None] * len(manifest)
    drawn: list[tuple[str, ...]] = [() for _ in range(len(manifest))]
    scenes = [Scene("", "", "") for _ in range(len(manifest))]
    features = np.zeros((len(manifest), FEATURES), dtype=np.float32)
    seen: list[dict[str, Measurement]] = [{} for _ in range(len(manifest))]
    reasons: dict[int, str] = {}
    boxes: list[Box] = [None] * len(manifest)
    unjudged: list[str | None] = [None] * len(manifest)
    shards = shards_of(manifest, config.samples)
    everything = [rows for _, _, rows in shards]
    if config.actors > 1 or of_cluster():
        from ifas.captioning.ray_captions import ray_parts

        parts = ray_parts(everything, images, config, folder, finder, uri)
    else:
        parts = local_parts(everything, images, captioner, config, folder, finder)
    for (_, places, _), part in zip(shards, parts, strict=True):
        for n, place in enumerate(places):
            captions[place], drawn[place] = part.captions[n], part.drawn[n]
            seen[place], scenes[place] = part.seen[n], part.scenes[n]
            boxes[place], unjudged[place] = part.boxes[n], part.unjudged[n] or None
            if captions[place] is None:
                reasons[place] = part.why[n]
        features[places] = part.features
        progress.advance(len(places), phase="general captions")
    if not any(captions):
        raise DataError(f"none of the {len(manifest)} images can be decoded", "check that the shards hold images")
    ids = manifest["sample_id"].tolist()
    refused = [{"sample_id": str(ids[place]), "why": why} for place, why in sorted(reasons.items())]
    return General(captions, drawn, seen, boxes, unjudged, scenes, features, refused)
