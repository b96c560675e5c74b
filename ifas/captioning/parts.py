"""General captions of one shard. A finished shard is kept in a file and is not captioned again.

On one machine shards are captioned one after the other, on a cluster by a pool of actors (`ray_captions`). Both call
`caption_shard`, so the captions are the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ifas.captioning.identity import without_identity
from ifas.captioning.inputs import CHANNELS, FEATURES, SIDE, network_input
from ifas.captioning.measure import measure
from ifas.captioning.pictures import CHUNK
from ifas.captioning.protocol import Caption, Captioner
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
    {"where", "actors", "gpus_per_actor", "device", "source_domains", "specialists", "conditional"}
    | {"imitate_steps", "tune_steps", "lr", "batch", "lora_rank", "lora_lr"}
)


class Wanted(NamedTuple):
    """One row of the manifest, as captioning needs it. `clip`: a frame of a video, whose box is that of a track."""

    sample_id: str
    shard: str
    row: int
    box: Box
    clip: bool = False


@dataclass(frozen=True, kw_only=True)
class Part:
    """Captions of a shard's rows, in their order.

    Attributes:
        captions: None where the picture was refused; `why` then holds the reason.
        seen: what the specialists measured, by name.
        boxes: of the face of each row; `unjudged`: why there is none that can be judged, or empty.
        pictures, features: network inputs, uint8 (n, CHANNELS, SIDE, SIDE) and float32 (n, FEATURES); zeros where
            refused.
    """

    captions: tuple[Caption | None, ...]
    seen: tuple[dict[str, Measurement], ...]
    why: tuple[str, ...]
    boxes: tuple[Box, ...]
    unjudged: tuple[str, ...]
    pictures: npt.NDArray[np.uint8]
    features: npt.NDArray[np.float32]


def shards_of(manifest: pd.DataFrame) -> list[tuple[str, list[int], list[Wanted]]]:
    """Name, places in the manifest and rows of each shard, in the order in which shards first occur."""
    columns = [manifest[name] for name in ("sample_id", "shard", "row", "face_box")]
    clips = manifest["frame_index"].notna() if "frame_index" in manifest else [False] * len(manifest)
    found: dict[str, tuple[list[int], list[Wanted]]] = {}
    for place, (sample_id, shard, row, box, clip) in enumerate(zip(*columns, clips, strict=True)):
        places, rows = found.setdefault(str(shard), ([], []))
        places.append(place)
        rows.append(Wanted(str(sample_id), str(shard), int(row), box_of(box), bool(clip)))
    return [(shard, *both) for shard, both in found.items()]


def caption_shard(
    rows: Sequence[Wanted], images: ImageSource, general: Captioner, finder: Finder | None = None
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
    specialists: list[dict[str, Measurement]] = [{} for _ in rows]
    why, unjudged = [""] * len(rows), [""] * len(rows)
    boxes = [row.box for row in rows]
    pictures = np.zeros((len(rows), CHANNELS, SIDE, SIDE), dtype=np.uint8)
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
        measured = [measure(seen[n], rows[place].box or boxes[place]) for n, place in enumerate(places)]
        for place, caption, values in zip(places, general.caption(measured), measured, strict=True):
            text, _ = without_identity(caption.text)
            captions[place] = Caption(text, {**values.values, **caption.evidence})
            specialists[place] = measurements(values)
            given = network_input(values)
            pictures[place], features[place] = given.picture, given.features
    return Part(
        captions=tuple(captions),
        seen=tuple(specialists),
        why=tuple(why),
        boxes=tuple(boxes),
        unjudged=tuple(unjudged),
        pictures=pictures,
        features=features,
    )


def part_file(folder: Path, rows: Sequence[Wanted], config: CaptionConfig, finder: Finder | None = None) -> Path:
    """Where a shard's captions are kept: the name follows from its rows and from what decides the captions."""
    faces = finder.config.model_dump(mode="json") if finder else None
    key = sha256_json([list(rows), config.model_dump(mode="json", exclude=set(_LATER)), faces])
    return folder / f"{key[:32]}.npz"


def save(part: Part, path: Path) -> None:
    """Writes a part atomically. It holds only numbers and text, so reading it can't execute anything."""
    import numpy as np

    texts = [None if c is None else [c.text, c.evidence] for c in part.captions]
    seen = [{name: [m.value, m.confidence] for name, m in one.items()} for one in part.seen]
    said = np.frombuffer(json.dumps([texts, seen, part.why, part.boxes, part.unjudged]).encode(), dtype=np.uint8)
    with replacing(path) as beside, beside.open("wb") as file:
        np.savez(file, said=said, pictures=part.pictures, features=part.features)


def load(path: Path, rows: int) -> Part | None:
    """The part in a file; None where the file is missing, damaged or has another number of rows."""
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as kept:
            texts, seen, why, boxes, unjudged = json.loads(kept["said"].tobytes())
            pictures, features = kept["pictures"], kept["features"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if not len(texts) == len(why) == len(boxes) == len(unjudged) == len(pictures) == len(features) == rows:
        return None
    captions = tuple(None if t is None else Caption(t[0], t[1]) for t in texts)
    measured = tuple({name: Measurement(*pair) for name, pair in one.items()} for one in seen)
    return Part(
        captions=captions,
        seen=measured,
        why=tuple(why),
        boxes=tuple(box_of(box) for box in boxes),
        unjudged=tuple(unjudged),
        pictures=pictures,
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
            part = caption_shard(rows, images, general, finder)
            save(part, path)
        yield part
