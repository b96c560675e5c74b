"""Packs a raw dataset into a dataset folder: manifest, shards and an index of everything that happened.

    manifest.parquet               one row per image, columns of core.manifest.COLUMNS
    shards/shard-00000.parquet     sample_id and the encoded image, as it was distributed
    dataset.json                   name, licences, counts, hashes, what was refused and why

Order is by domain, then by path, and a shard holds one domain: a domain that comes later leaves the shards of the
others as they are, so only what is new is stored and pushed. The same input gives the same bytes; there is no time and
no machine in any file. Each file is read once; images are in memory only until they are in a shard, and rows only until
their shard is finished, so memory does not grow with images. A run that was stopped goes on behind its last shard.
"""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ifas.core.errors import DataError
from ifas.core.files import remove, replacing, sha256_file, sha256_json, write_json
from ifas.core.imaging import ImageLimits
from ifas.core.manifest import DATASET_FILE, MANIFEST_FILE, SHARDS_DIR
from ifas.core.progress import Progress
from ifas.data.dataset import FORMAT, check_name
from ifas.data.inspection import Inspected, inspect
from ifas.data.pack_journal import Journal, journal_beside
from ifas.data.readers import RawSample, Refusal, Scan, reader
from ifas.data.tables import ShardFile, ShardWriter, manifest_table, write_manifest
from ifas.data.video.audit import selection_audit
from ifas.data.video.plan import FramePlan

if TYPE_CHECKING:
    import pyarrow as pa

#: Unrecognised files that the index names; the rest is counted.
NAMED_FILES = 100


class Duplicate(NamedTuple):
    """An image whose bytes are in the dataset already."""

    source: str
    same_as: str


@dataclass(frozen=True)
class PackReport:
    """What packing did. `bytes` counts the shards; `resumed` the samples that an earlier run had dealt with."""

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
    resumed: int = 0

    @property
    def summary(self) -> str:
        """One line with the counts."""
        return (
            f"{self.rows} images of {self.subjects} subjects in {self.shards} shards ({self.bytes / 1e6:.1f} MB), "
            f"{len(self.refused)} refused, {len(self.duplicates)} duplicates, {self.unrecognised} files not recognised"
            + (f", {self.resumed} done before" if self.resumed else "")
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
            "resumed": self.resumed,
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
    frames: str = "two",
) -> PackReport:
    """Packs the raw dataset at `root` into the dataset folder `out`, which appears whole or not at all.

    A bad image is refused: counted and listed with the reason; it never ends the run. Images of identical bytes are
    kept once, the first in order; where their labels contradict each other, all of them are refused.

    Args:
        layout: key of `readers.READERS`.
        name: name of the dataset in the registry.
        licence: of images for which neither the layout nor the dataset says one.
        limits: what is taken at all.
        shard_bytes: image bytes after which a shard ends.
        workers: threads that read and hash.
        frames: of a video: `two` or `every:K`, see `FramePlan`.

    Raises:
        DataError: not this layout, no licence, no image accepted, no disk space, `out` holds something else, or another
            process packs into it.
        ConfigError: unknown layout or frames.
    """
    check_name(name)
    plan = FramePlan.parse(frames)
    _check_out(root, out)
    scan = reader(layout).scan(root)
    samples = sorted(scan.samples, key=lambda s: (s.domain, s.source))
    default = licence or scan.licence
    unlicensed = [s.source for s in samples if not (s.licence or default)]
    if unlicensed:
        raise DataError(
            f"{root} does not say the licence of {len(unlicensed)} images, first {unlicensed[0]}",
            "pass --licence with an SPDX id or the dataset's terms",
        )
    limits = limits or ImageLimits()
    with _disk_space(out), journal_beside(out) as journal:
        for unfinished in out.parent.glob(f".{out.name}.*.part"):  # of a packing that was killed: nobody else is at it
            remove(unfinished)
        options = [layout, name, default, limits.model_dump(), shard_bytes, frames, FORMAT]
        journal.open({"samples": len(samples), "listing": _listing(samples), "options": sha256_json(options)})
        resumed = journal.consumed
        ledger = _Ledger(name, default)
        for part in journal.parts:
            for row in journal.rows(part):
                ledger.take(row)
        _write_shards(journal, samples, ledger, limits, plan, shard_bytes, workers)
        refused = sorted([*scan.refused, *ledger.refused, *ledger.contradictions()])
        if len(ledger.first) == len(ledger.contradicting):
            first = f"; first: {refused[0].source}: {refused[0].reason}" if refused else ""
            raise DataError(
                f"{root}: all {len(refused)} images were refused{first}", "check the dataset and its labels"
            )
        with replacing(out) as beside:
            beside.mkdir()
            counted = _Counts()
            shards = _assemble(journal, ledger, beside, counted, shard_bytes)
            index = _index(name, layout, scan, counted, shards, refused, ledger.kept_duplicates(), beside)
            index["selection_audit"] = selection_audit(refused, counted.selected)
            write_json(beside / DATASET_FILE, index)
    return PackReport(
        path=out,
        name=name,
        dataset_sha256=sha256_file(out / DATASET_FILE),
        rows=counted.rows,
        subjects=len(counted.subjects),
        shards=len(shards),
        bytes=sum(s.bytes for s in shards),
        refused=tuple(refused),
        duplicates=tuple(ledger.kept_duplicates()),
        unrecognised=len(scan.unrecognised),
        resumed=resumed,
    )


def _check_out(root: Path, out: Path) -> None:
    """Packing replaces `out`, so it must be a dataset folder, empty or not there at all."""
    here, there = root.resolve(), out.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise DataError(f"output {out} and the raw dataset {root} lie inside each other", "pack into another folder")
    if out.exists() and not (out.is_dir() and ((out / DATASET_FILE).is_file() or not any(out.iterdir()))):
        raise DataError(f"{out} exists and is not a dataset folder", "pack into a new folder, or remove this one")


def _listing(samples: list[RawSample]) -> str:
    """Hash over what the scan says and over size and time of every file: a changed dataset is not resumed."""
    import hashlib

    digest = hashlib.sha256()
    said = attrgetter(*(field.name for field in fields(RawSample) if field.name != "path"))
    for sample in samples:
        try:
            stat = os.stat(sample.path)
            state = (stat.st_size, stat.st_mtime_ns)
        except OSError:
            state = None
        digest.update(f"{said(sample)!r} {state}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


@dataclass
class _Ledger:
    """What happened so far: bytes seen, images refused or left out. Holds hashes and sources, no images and no rows."""

    name: str
    licence: str
    first: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    contradicting: dict[bytes, set[str]] = field(default_factory=dict)
    duplicates: list[tuple[bytes, str]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

    def judge(self, found: Inspected | Refusal) -> dict[str, Any]:
        """The record of one image: a row of the manifest without its place, or why it is none."""
        if isinstance(found, Refusal):
            return {"refused": list(found)}
        if bytes.fromhex(found.sample_id) in self.first:
            return {"again": found.sample_id, "source": found.sample.source, "pai_species": found.sample.pai_species}
        return _row(found, self.name, self.licence)

    def take(self, record: dict[str, Any]) -> None:
        """Counts a record, fresh or read back from the journal."""
        if "refused" in record:
            self.refused.append(Refusal(*record["refused"]))
            return
        key = bytes.fromhex(record.get("again") or record["sample_id"])
        if "again" not in record:
            self.first[key] = (record["source"], record["pai_species"])
            return
        self.duplicates.append((key, record["source"]))
        if record["pai_species"] != self.first[key][1]:
            self.contradicting.setdefault(key, {self.first[key][1]}).add(record["pai_species"])

    def kept_duplicates(self) -> list[Duplicate]:
        """Images left out because the same bytes are there, with the same species."""
        return [Duplicate(s, self.first[key][0]) for key, s in self.duplicates if key not in self.contradicting]

    def contradictions(self) -> list[Refusal]:
        """All images whose bytes are there under more than one species."""
        said = {
            key: f"the same bytes are there more than once, labelled {', '.join(sorted(species))}"
            for key, species in self.contradicting.items()
        }
        again = [Refusal(source, said[key]) for key, source in self.duplicates if key in said]
        return [*(Refusal(self.first[key][0], reason) for key, reason in said.items()), *again]


def _write_shards(
    journal: Journal,
    samples: list[RawSample],
    ledger: _Ledger,
    limits: ImageLimits,
    plan: FramePlan,
    shard_bytes: int,
    workers: int,
) -> None:
    """Everything that the journal does not hold yet, shard by shard."""
    start = journal.consumed
    progress = Progress("ingest", total=len(samples), done=start)
    records: list[dict[str, Any]] = []
    with ShardWriter(journal.folder, shard_bytes, first=len(journal.parts)) as writer:

        def finish(consumed: int) -> None:
            done = len(writer.files)
            writer.cut()
            if len(writer.files) > done:
                journal.add(writer.files[-1], consumed, records)
                records.clear()

        domain = ""
        for number, found in enumerate(inspect(samples[start:], limits, plan, workers), start=start):
            if samples[number].domain != domain:
                finish(number)
                domain = samples[number].domain
            for one in found:
                record = ledger.judge(one)
                ledger.take(record)
                if isinstance(one, Inspected) and "sample_id" in record:
                    record["shard"], record["row"] = writer.add(one.sample_id, one.data)
                records.append(record)
            progress.advance()
            if writer.full:
                finish(number + 1)
        finish(len(samples))


def _assemble(journal: Journal, ledger: _Ledger, beside: Path, counted: _Counts, shard_bytes: int) -> list[ShardFile]:
    """Moves the shards into the dataset folder and writes its manifest, without images that contradict each other."""
    drop = {key.hex() for key in ledger.contradicting}
    (beside / SHARDS_DIR).mkdir()
    shards: list[ShardFile] = []

    def tables() -> Iterator[pa.Table]:
        for part in journal.parts:
            rows = [record for record in journal.rows(part) if "shard" in record]
            kept = [row for row in rows if row["sample_id"] not in drop]
            source = journal.folder / SHARDS_DIR / part.shard.name
            if len(kept) == len(rows):
                # Linked, not moved: a run that is killed here finds its journal whole.
                (beside / SHARDS_DIR / part.shard.name).hardlink_to(source)
                shards.append(part.shard)
            elif kept:
                number = int(part.shard.name.removesuffix(".parquet").rpartition("-")[2])
                shards.append(_without(source, beside, number, kept, shard_bytes))
            counted.add(kept)
            yield manifest_table(kept)

    write_manifest(beside / MANIFEST_FILE, tables())
    return shards


def _without(source: Path, beside: Path, number: int, kept: list[dict[str, Any]], shard_bytes: int) -> ShardFile:
    """The shard again with the kept rows only, whose places are brought up to date."""
    import pyarrow.parquet as pq

    wanted = {row["row"]: row for row in kept}
    place = 0
    with ShardWriter(beside, shard_bytes, first=number) as writer:
        for batch in pq.ParquetFile(source).iter_batches(batch_size=64):
            for sample_id, image in zip(batch["sample_id"].to_pylist(), batch["image"].to_pylist(), strict=True):
                if place in wanted:
                    _, wanted[place]["row"] = writer.add(sample_id, image)
                place += 1
    return writer.files[0]


def _row(image: Inspected, name: str, licence: str) -> dict[str, Any]:
    """Columns of the manifest; shard and row follow when the image is in a shard."""
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


@dataclass
class _Counts:
    """Counts over the rows, for the index."""

    rows: int = 0
    subjects: set[str] = field(default_factory=set)
    licences: Counter[str] = field(default_factory=Counter)
    classes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    selected: Counter[tuple[str, str]] = field(default_factory=Counter)
    synthetic: bool = True

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Counts the rows of a shard."""
        self.rows += len(rows)
        self.subjects.update(row["subject_id"] for row in rows)
        self.licences.update(row["licence"] for row in rows)
        self.classes.update((row["domain"], row["split"], row["spoof_type"]) for row in rows)
        self.selected.update((row["pai_species"], row["domain"]) for row in rows)
        self.synthetic &= all(row["synthetic"] for row in rows)


def _index(
    name: str,
    layout: str,
    scan: Scan,
    counted: _Counts,
    shards: list[ShardFile],
    refused: list[Refusal],
    duplicates: list[Duplicate],
    beside: Path,
) -> dict[str, Any]:
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for (domain, split, kind), n in sorted(counted.classes.items()):
        counts.setdefault(domain, {}).setdefault(split, {})[kind] = n
    return {
        "format": FORMAT,
        "name": name,
        "description": scan.description,
        "layout": layout,
        "synthetic": counted.synthetic,
        "licences": dict(sorted(counted.licences.items())),
        "rows": counted.rows,
        "subjects": len(counted.subjects),
        "counts": counts,
        "shards": {s.name: {"sha256": s.sha256, "rows": s.rows, "bytes": s.bytes} for s in shards},
        "manifest_sha256": sha256_file(beside / MANIFEST_FILE),
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
            raise DataError(
                f"no disk space left for {out}; the dataset is as it was", "free some and pack again, or pack elsewhere"
            ) from error
        raise
