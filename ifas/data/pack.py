"""Packs a raw dataset into a dataset folder: manifest, shards and an index of everything that happened.

    manifest.parquet               one row per image, columns of core.manifest.COLUMNS
    shards/shard-00000.parquet     sample_id and the encoded image, as it was distributed
    dataset.json                   name, licences, counts, hashes, what was refused and why

Order is by domain, then by path, and a shard holds one domain: a domain that comes later leaves the shards of the
others as they are, so only what is new is stored and pushed. The same input gives the same bytes; there is no time and
no machine in any file.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ifas.core.errors import DataError
from ifas.core.files import replacing, sha256_file, write_json
from ifas.core.imaging import ImageLimits
from ifas.core.manifest import DATASET_FILE, MANIFEST_FILE
from ifas.core.progress import Progress
from ifas.data.dataset import FORMAT, check_name
from ifas.data.inspection import Inspected, inspect, read_limited
from ifas.data.readers import Refusal, Scan, reader
from ifas.data.tables import ShardFile, ShardWriter, write_manifest

#: Unrecognised files that the index names; the rest is counted.
NAMED_FILES = 100


class Duplicate(NamedTuple):
    """An image whose bytes are in the dataset already."""

    source: str
    same_as: str


@dataclass(frozen=True)
class PackReport:
    """What packing did. `bytes` counts the shards."""

    path: Path
    name: str
    dataset_sha256: str
    rows: int
    subjects: int
    shards: int
    bytes: int
    refused: tuple[Refusal, ...]
    duplicates: tuple[Duplicate, ...]
    unrecognised: int

    @property
    def summary(self) -> str:
        """One line with the counts."""
        return (
            f"{self.rows} images of {self.subjects} subjects in {self.shards} shards ({self.bytes / 1e6:.1f} MB), "
            f"{len(self.refused)} refused, {len(self.duplicates)} duplicates, {self.unrecognised} files not recognised"
        )

    @property
    def facts(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "path": str(self.path),
            "name": self.name,
            "dataset_sha256": self.dataset_sha256,
            "rows": self.rows,
            "subjects": self.subjects,
            "shards": self.shards,
            "bytes": self.bytes,
            "refused": [r._asdict() for r in self.refused],
            "duplicates": [d._asdict() for d in self.duplicates],
            "unrecognised": self.unrecognised,
        }


def pack(
    layout: str,
    root: Path,
    out: Path,
    *,
    name: str,
    licence: str | None = None,
    limits: ImageLimits | None = None,
    shard_bytes: int = 256 * 2**20,
    workers: int = 2,
) -> PackReport:
    """Packs the raw dataset at `root` into the dataset folder `out`, which appears whole or not at all.

    A bad image is refused: counted and listed with the reason; it never ends the run. Images of identical bytes are
    kept once, the first in order; where their labels contradict each other, all of them are refused.

    Args:
        layout: key of `readers.READERS`.
        name: name of the dataset in the registry.
        licence: of images for which neither the layout nor the dataset says one.
        limits: what is decoded at all.
        shard_bytes: image bytes after which a shard ends.
        workers: threads that decode.

    Raises:
        DataError: not this layout, no licence, no image accepted, no disk space, or `out` holds something else.
        ConfigError: unknown layout.
    """
    check_name(name)
    _check_out(root, out)
    scan = reader(layout).scan(root)
    samples = sorted(scan.samples, key=lambda s: (s.domain, s.source))
    unlicensed = [s.source for s in samples if not (s.licence or licence or scan.licence)]
    if unlicensed:
        raise DataError(
            f"{root} does not say the licence of {len(unlicensed)} images, first {unlicensed[0]}",
            "pass --licence with an SPDX id or the dataset's terms",
        )
    limits = limits or ImageLimits()
    progress = Progress("ingest", total=len(samples))
    good: list[Inspected] = []
    refused = list(scan.refused)
    for found in inspect(samples, limits, workers):
        progress.advance()
        if isinstance(found, Inspected):
            good.append(found)
        else:
            refused.append(found)
    kept, duplicates, contradicting = _deduplicated(good)
    refused.extend(contradicting)
    refused.sort()
    if not kept:
        first = f"; first: {refused[0].source}: {refused[0].reason}" if refused else ""
        raise DataError(f"{root}: all {len(refused)} images were refused{first}", "check the dataset and its labels")
    with _disk_space(out), replacing(out) as beside:
        beside.mkdir()
        default = licence or scan.licence
        rows, shards = _write_images(beside, kept, name, default, shard_bytes, limits)
        write_manifest(beside / MANIFEST_FILE, rows)
        index = _index(name, layout, scan, rows, shards, refused, duplicates, sha256_file(beside / MANIFEST_FILE))
        write_json(beside / DATASET_FILE, index)
    return PackReport(
        path=out,
        name=name,
        dataset_sha256=sha256_file(out / DATASET_FILE),
        rows=len(rows),
        subjects=index["subjects"],
        shards=len(shards),
        bytes=sum(s.bytes for s in shards),
        refused=tuple(refused),
        duplicates=tuple(duplicates),
        unrecognised=len(scan.unrecognised),
    )


def _check_out(root: Path, out: Path) -> None:
    """Packing replaces `out`, so it must be a dataset folder, empty or not there at all."""
    here, there = root.resolve(), out.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise DataError(f"output {out} and the raw dataset {root} lie inside each other", "pack into another folder")
    if out.exists() and not (out.is_dir() and ((out / DATASET_FILE).is_file() or not any(out.iterdir()))):
        raise DataError(f"{out} exists and is not a dataset folder", "pack into a new folder, or remove this one")


def _deduplicated(images: list[Inspected]) -> tuple[list[Inspected], list[Duplicate], list[Refusal]]:
    first: dict[str, Inspected] = {}
    species: dict[str, set[str]] = {}
    for image in images:
        first.setdefault(image.sample_id, image)
        species.setdefault(image.sample_id, set()).add(image.sample.pai_species)
    kept: list[Inspected] = []
    duplicates: list[Duplicate] = []
    contradicting: list[Refusal] = []
    for image in images:
        source, original = image.sample.source, first[image.sample_id]
        if len(species[image.sample_id]) > 1:
            names = ", ".join(sorted(species[image.sample_id]))
            contradicting.append(Refusal(source, f"the same bytes are there more than once, labelled {names}"))
        elif image is original:
            kept.append(image)
        else:
            duplicates.append(Duplicate(source, original.sample.source))
    return kept, duplicates, contradicting


def _write_images(
    folder: Path, kept: list[Inspected], name: str, licence: str, shard_bytes: int, limits: ImageLimits
) -> tuple[list[dict[str, Any]], list[ShardFile]]:
    rows = []
    domain = kept[0].sample.domain
    with ShardWriter(folder, shard_bytes) as writer:
        for image in kept:
            if image.sample.domain != domain:
                writer.cut()
                domain = image.sample.domain
            data = read_limited(image.sample.path, limits)
            if hashlib.sha256(data).hexdigest() != image.sample_id:
                raise DataError(f"{image.sample.path} changed while it was packed", "pack again when nobody writes")
            shard, row = writer.add(image.sample_id, data)
            rows.append(_row(image, name, licence, shard, row))
    return rows, writer.files


def _row(image: Inspected, name: str, licence: str, shard: str, row: int) -> dict[str, Any]:
    sample = image.sample
    return {
        "sample_id": image.sample_id,
        "dataset": name,
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
        "shard": shard,
        "row": row,
        "phash": image.phash,
        "licence": sample.licence or licence,
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


def _index(
    name: str,
    layout: str,
    scan: Scan,
    rows: list[dict[str, Any]],
    shards: list[ShardFile],
    refused: list[Refusal],
    duplicates: list[Duplicate],
    manifest_sha256: str,
) -> dict[str, Any]:
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for row in sorted(rows, key=lambda r: (r["domain"], r["split"], r["spoof_type"])):
        of_split = counts.setdefault(row["domain"], {}).setdefault(row["split"], {})
        of_split[row["spoof_type"]] = of_split.get(row["spoof_type"], 0) + 1
    return {
        "format": FORMAT,
        "name": name,
        "description": scan.description,
        "layout": layout,
        "synthetic": all(row["synthetic"] for row in rows),
        "licences": dict(sorted(Counter(row["licence"] for row in rows).items())),
        "rows": len(rows),
        "subjects": len({row["subject_id"] for row in rows}),
        "counts": counts,
        "shards": {s.name: {"sha256": s.sha256, "rows": s.rows, "bytes": s.bytes} for s in shards},
        "manifest_sha256": manifest_sha256,
        "refused": [r._asdict() for r in refused],
        "duplicates": [d._asdict() for d in duplicates],
        "unrecognised": {"count": len(scan.unrecognised), "first": list(scan.unrecognised[:NAMED_FILES])},
        "notes": list(scan.notes),
    }


@contextmanager
def _disk_space(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"no disk space left for {out}; nothing was written", "free some, or pack elsewhere") from (
                error
            )
        raise
