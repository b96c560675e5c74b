"""Packs one piece into a folder of its own, which appears whole or not at all.

<number>/shards/shard-00000.parquet    its images, one shard or more
<number>/rows.parquet                  their rows of the manifest; `shard` and `row` count within the piece
<number>/piece.json                    hashes of these, and what was refused or left out on the way
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.files import read_json, replacing, sha256_file, write_json
from ifas.core.imaging import ImageLimits
from ifas.core.manifest import SHARDS_DIR
from ifas.data.media import ReadBuffer
from ifas.data.pack.inspection import Inspected, inspect
from ifas.data.pack.plan import Piece
from ifas.data.readers import Refusal
from ifas.data.tables import ShardFile, ShardWriter, contents_sha256, manifest_table
from ifas.data.video.plan import FramePlan

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_FILE, PIECE_FILE = "rows.parquet", "piece.json"
#: Files up to this size are read into memory used before; to take fresh memory for each costs more than hashing it.
BUFFER_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Options:
    """What packing a piece depends on, its samples apart."""

    name: str
    licence: str
    limits: ImageLimits
    frames: FramePlan
    shard_bytes: int


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A packed piece. `again` are images whose bytes came before in this piece: (sample_id, source, PAI species)."""

    folder: Path
    samples: int
    shards: tuple[ShardFile, ...]
    rows_sha256: str
    refused: tuple[Refusal, ...]
    again: tuple[tuple[str, str, str], ...]

    def rows(self, columns: list[str] | None = None) -> pa.Table:
        """Its rows of the manifest."""
        import pyarrow.parquet as pq

        return pq.read_table(self.folder / ROWS_FILE, columns=columns)

    def shard(self, shard: ShardFile) -> Path:
        """Where a shard of it is."""
        return self.folder / SHARDS_DIR / shard.name


def pack_piece(piece: Piece, folder: Path, options: Options, count: Callable[[], None]) -> None:
    """Packs `piece` into a folder below `folder`. `count` is called once for each sample that is dealt with."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []
    refused: list[Refusal] = []
    again: list[tuple[str, str, str]] = []
    known: set[str] = set()
    buffer = ReadBuffer(BUFFER_BYTES)
    with replacing(piece_folder(folder, piece)) as beside:
        beside.mkdir()
        with ShardWriter(beside, options.shard_bytes) as writer:
            for sample in piece.samples:
                for found in inspect(sample, options.limits, options.frames, buffer):
                    if isinstance(found, Refusal):
                        refused.append(found)
                    elif found.sample_id in known:
                        again.append((found.sample_id, found.sample.source, found.sample.pai_species))
                    else:
                        known.add(found.sample_id)
                        if writer.full:  # before, so that what a plan takes for one shard is one
                            writer.cut()
                        shard, row = writer.add(found.sample_id, found.data)
                        rows.append({**_row(found, options), "shard": shard, "row": row})
                count()
        pq.write_table(manifest_table(rows), beside / ROWS_FILE, compression="none")
        facts = {
            "samples": len(piece.samples),
            "shards": [asdict(shard) for shard in writer.files],
            "rows_sha256": sha256_file(beside / ROWS_FILE),
            "refused": refused,
            "again": again,
        }
        write_json(beside / PIECE_FILE, facts)


def piece_folder(folder: Path, piece: Piece) -> Path:
    """Where a piece is packed."""
    return folder / f"{piece.number:05d}"


def finished(folder: Path) -> Finished:
    """The piece that was packed into `folder`. Raises OSError, ValueError, KeyError or TypeError where none is."""
    facts = read_json(folder / PIECE_FILE)
    return Finished(
        folder=folder,
        samples=facts["samples"],
        shards=tuple(ShardFile(**shard) for shard in facts["shards"]),
        rows_sha256=facts["rows_sha256"],
        refused=tuple(Refusal(*one) for one in facts["refused"]),
        again=tuple((sample_id, source, species) for sample_id, source, species in facts["again"]),
    )


def whole(piece: Piece, folder: Path) -> bool:
    """Whether `piece` is packed below `folder`, its files as they were when it was finished."""
    try:
        done = finished(piece_folder(folder, piece))
        return (
            done.samples == len(piece.samples)
            and sha256_file(done.folder / ROWS_FILE) == done.rows_sha256
            and all(contents_sha256(done.shard(shard)) == shard.ids_sha256 for shard in done.shards)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _row(image: Inspected, options: Options) -> dict[str, Any]:
    """Columns of the manifest, without the image's place."""
    sample = image.sample
    return {
        "sample_id": image.sample_id,
        "dataset": options.name,
        "domain": sample.domain,
        "subject_id": sample.subject_id,
        "media_id": sample.media_id,
        "track_id": sample.track_id,
        "frame_index": sample.frame_index,
        "split": sample.split,
        "label": sample.label,
        "spoof_type": sample.spoof_type,
        "pai_species": sample.pai_species,
        "device": sample.device,
        "environment": sample.environment,
        "illumination": sample.illumination,
        "face_box": _pixels(image),
        "width": image.width,
        "height": image.height,
        "licence": sample.licence or options.licence,
        "source": sample.source,
        "synthetic": sample.synthetic,
        "attack": None if sample.attack is None else json.dumps(sample.attack, sort_keys=True),
        "quality": None if sample.quality is None else json.dumps(sample.quality, sort_keys=True),
        "batch": None,
        "status": "released",
    }


def _pixels(image: Inspected) -> list[float] | None:
    """The face box in pixels of the image, clipped to it; None where nothing of it is inside."""
    if image.sample.face_box is None:
        return None
    x, y, w, h = image.sample.face_box
    if image.sample.box_frame:
        across, down = image.width / image.sample.box_frame[0], image.height / image.sample.box_frame[1]
        x, y, w, h = x * across, y * down, w * across, h * down
    left, top = max(0.0, x), max(0.0, y)
    right, bottom = min(float(image.width), x + w), min(float(image.height), y + h)
    return [left, top, right - left, bottom - top] if right > left and bottom > top else None
