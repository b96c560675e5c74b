"""General captions of one shard. A finished shard is kept in a file and is not captioned again.

On one machine shards are captioned one after the other, on a cluster by a pool of actors (`ray_captions`). Both call
`caption_shard`, so the captions are the same.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ifas.captioning.identity import without_identity
from ifas.captioning.measure import FEATURES, Measured, measure
from ifas.captioning.pictures import CHUNK
from ifas.captioning.protocol import Caption, Captioner
from ifas.captioning.scene import Scene
from ifas.captioning.specialists import Measurement, measurements
from ifas.core.errors import CorruptShardError, DataError, FaceRefused
from ifas.core.files import replacing, sha256_json
from ifas.core.imaging import decode
from ifas.core.manifest import ImageSource
from ifas.faces.boxes import box_of
from ifas.faces.finder import Finder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from ifas.captioning.view import Box, Picture
    from ifas.core.config import CaptionConfig

#: Settings that change no general caption. Any other setting, also that of a new captioner, is part of a file's name.
_LATER = frozenset(
    {"actors", "gpus_per_actor", "device", "source_domains", "specialists", "conditional"}
    | {"imitate_steps", "tune_steps", "lr", "weight_decay", "held_out", "balance", "lora_rank", "lora_lr"}
    | {"wrong_medium", "supported"}
)


class Wanted(NamedTuple):
    """One row of the manifest, as captioning needs it.

    Attributes:
        clip: a frame of a video, whose box is that of a track.
        draws: captions to be drawn beside the likeliest one.
    """

    sample_id: str
    shard: str
    row: int
    box: Box
    clip: bool = False
    draws: int = 0


@dataclass(frozen=True, kw_only=True)
class Part:
    """Captions of a shard's rows, in their order.

    Attributes:
        captions: None where the picture was refused; `why` then holds the reason.
        drawn: further captions, as many as the row wants.
        seen: what the specialists measured, by name.
        boxes: of the face of each row; `unjudged`: why there is none that can be judged, or empty.
        scenes: words of each picture's scene.
        features: measurements and traces, float32 (n, FEATURES); zeros where refused.
    """

    captions: tuple[Caption | None, ...]
    drawn: tuple[tuple[str, ...], ...]
    seen: tuple[dict[str, Measurement], ...]
    scenes: tuple[Scene, ...]
    why: tuple[str, ...]
    boxes: tuple[Box, ...]
    unjudged: tuple[str, ...]
    features: npt.NDArray[np.float32]


def shards_of(manifest: pd.DataFrame, samples: int = 1) -> list[tuple[str, list[int], list[Wanted]]]:
    """Name, places in the manifest and rows of each shard, in the order in which shards first occur.

    Args:
        samples: captions wanted of an attack in all; a bona fide picture gets one.
    """
    columns = [manifest[name] for name in ("sample_id", "shard", "row", "face_box", "label")]
    clips = manifest["frame_index"].notna() if "frame_index" in manifest else [False] * len(manifest)
    found: dict[str, tuple[list[int], list[Wanted]]] = {}
    for place, (sample_id, shard, row, box, label, clip) in enumerate(zip(*columns, clips, strict=True)):
        places, rows = found.setdefault(str(shard), ([], []))
        places.append(place)
        draws = samples - 1 if label == "spoof" else 0
        rows.append(Wanted(str(sample_id), str(shard), int(row), box_of(box), bool(clip), draws))
    return [(shard, *both) for shard, both in found.items()]


def caption_shard(
    rows: Sequence[Wanted],
    images: ImageSource,
    general: Captioner,
    config: CaptionConfig,
    finder: Finder | None = None,
) -> Part:
    """Measures and captions the pictures of a shard, and finds the faces in them.

    A picture that can't be decoded, or has no face that can be judged, does not stop the others. Measured is the box of
    the dataset, or else that of the face that was found.

    Args:
        finder: of faces; None keeps the boxes of the dataset.

    Raises:
        CorruptShardError: the shard itself is damaged.
    """
    import numpy as np

    captions: list[Caption | None] = [None] * len(rows)
    drawn: list[tuple[str, ...]] = [() for _ in rows]
    specialists: list[dict[str, Measurement]] = [{} for _ in rows]
    scenes = [Scene("", "", "") for _ in rows]
    why, unjudged = [""] * len(rows), [""] * len(rows)
    boxes = [row.box for row in rows]
    features = np.zeros((len(rows), FEATURES), dtype=np.float32)
    for start in range(0, len(rows), CHUNK):
        places: list[int] = []
        seen: list[Picture] = []
        for place, wanted in enumerate(rows[start : start + CHUNK], start=start):
            try:
                picture = decode(images.read(wanted.shard, wanted.row))
            except CorruptShardError:  # this is not one bad picture: the dataset itself is damaged
                raise
            except DataError as error:
                why[place] = error.what
                continue
            seen.append(picture)
            places.append(place)
            if finder is not None and not (wanted.clip and wanted.box):
                try:
                    boxes[place] = finder.find(picture, wanted.box).box
                except FaceRefused as refused:
                    unjudged[place] = refused.reason
        looked = list(_threads().map(_look, seen, [rows[place].box or boxes[place] for place in places]))
        measured = [one for one, _ in looked]
        for place, caption, (values, found) in zip(places, general.caption(measured), looked, strict=True):
            text, _ = without_identity(caption.text)
            captions[place] = Caption(text, {**values.values, **caption.evidence})
            specialists[place], scenes[place] = found, values.scene
            features[place] = values.features
        for draws in {rows[place].draws for place in places} - {0}:
            mine = [n for n, place in enumerate(places) if rows[place].draws == draws]
            for n, texts in zip(mine, general.sample([measured[n] for n in mine], draws, config), strict=True):
                drawn[places[n]] = tuple(without_identity(text)[0] for text in texts)
    return Part(
        captions=tuple(captions),
        drawn=tuple(drawn),
        seen=tuple(specialists),
        scenes=tuple(scenes),
        why=tuple(why),
        boxes=tuple(boxes),
        unjudged=tuple(unjudged),
        features=features,
    )


def _look(picture: Picture, box: Box) -> tuple[Measured, dict[str, Measurement]]:
    one = measure(picture, box)
    return one, measurements(one)


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads that measure: nearly all of it is native code, which lets the others run."""
    return ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="measure")


def part_file(folder: Path, rows: Sequence[Wanted], config: CaptionConfig, finder: Finder | None = None) -> Path:
    """Where a shard's captions are kept: the name follows from its rows and from what decides the captions."""
    faces = finder.config.model_dump(mode="json") if finder else None
    key = sha256_json([list(rows), config.model_dump(mode="json", exclude=set(_LATER)), faces])
    return folder / f"{key[:32]}.npz"


def save(part: Part, path: Path) -> None:
    """Writes a part atomically."""
    with replacing(path) as beside:
        beside.write_bytes(packed(part))


def packed(part: Part) -> bytes:
    """The file of a part. It holds only numbers and text, so reading it can't execute anything."""
    import numpy as np

    texts = [None if c is None else [c.text, c.evidence] for c in part.captions]
    seen = [{name: [m.value, m.confidence] for name, m in one.items()} for one in part.seen]
    scenes = [[one.wall, one.top, one.light] for one in part.scenes]
    plain = [texts, part.drawn, seen, scenes, part.why, part.boxes, part.unjudged]
    said = np.frombuffer(json.dumps(plain).encode(), dtype=np.uint8)
    file = io.BytesIO()
    np.savez(file, said=said, features=part.features)
    return file.getvalue()


def load(path: Path, rows: int) -> Part | None:
    """The part in a file; None where the file is missing, damaged or has another number of rows."""
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as kept:
            texts, drawn, seen, scenes, why, boxes, unjudged = json.loads(kept["said"].tobytes())
            features = kept["features"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if any(len(one) != rows for one in (texts, drawn, scenes, why, boxes, unjudged, features)):
        return None
    captions = tuple(None if t is None else Caption(t[0], t[1]) for t in texts)
    measured = tuple({name: Measurement(*pair) for name, pair in one.items()} for one in seen)
    return Part(
        captions=captions,
        drawn=tuple(tuple(one) for one in drawn),
        seen=measured,
        scenes=tuple(Scene(*one) for one in scenes),
        why=tuple(why),
        boxes=tuple(box_of(box) for box in boxes),
        unjudged=tuple(unjudged),
        features=features,
    )


def local_parts(
    shards: Iterable[Sequence[Wanted]],
    images: ImageSource,
    general: Captioner,
    config: CaptionConfig,
    folder: Path,
    finder: Finder | None = None,
) -> Iterator[Part]:
    """The part of each shard, in order. Finished parts are kept in `folder`, and used again where they are there."""
    for rows in shards:
        path = part_file(folder, rows, config, finder)
        part = load(path, len(rows))
        if part is None:
            part = caption_shard(rows, images, general, config, finder)
            save(part, path)
        yield part
