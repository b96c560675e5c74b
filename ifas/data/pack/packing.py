"""From a raw dataset to a dataset folder."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.errors import DataError, MachineError
from ifas.core.files import replacing, sha256_file, sha256_json, write_json
from ifas.core.imaging import ImageLimits
from ifas.core.manifest import DATASET_FILE, MANIFEST_FILE, SHARDS_DIR
from ifas.core.progress import Progress
from ifas.data.dataset import FORMAT, check_name, check_replaceable, class_counts
from ifas.data.pack.duplicates import Duplicate, SeenImages
from ifas.data.pack.journal import journal_beside, missing
from ifas.data.pack.piece import Finished, Options, finished, piece_folder
from ifas.data.pack.plan import in_order, plan
from ifas.data.pack.pool import PackingPool
from ifas.data.readers import Refusal, Scan, reader
from ifas.data.tables import ShardFile, ShardWriter, shard_name, write_manifest
from ifas.data.video.audit import selection_audit
from ifas.data.video.plan import FramePlan

if TYPE_CHECKING:
    import pyarrow as pa

#: Unrecognised files that the index names; the rest is counted.
NAMED_FILES = 100


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
    workers: int | None = None,
    frames: str = "two",
) -> PackReport:
    """Packs the raw dataset at `root` into the dataset folder `out`, which appears whole or not at all.

    A bad image does not end the run: it is refused, counted and listed with the reason. Images of identical bytes are
    kept once, the first in order; where their labels contradict each other, all of them are refused.

    Args:
        layout: key of `readers.READERS`.
        name: name of the dataset in the registry.
        licence: of images for which neither the layout nor the dataset says one.
        limits: what is taken at all.
        shard_bytes: image bytes after which a shard ends.
        workers: processes, of which each packs a piece at a time; None: one a core. They are spawned, so
                a script that calls this has its code under `if __name__ == "__main__"`.
        frames: of a video: `two` or `every:K`, see `FramePlan`.

    Raises:
        DataError: not this layout, no licence, no image accepted, `out` holds anything that is not part of a dataset,
            or another process packs into it.
        MachineError: no disk space.
        ConfigError: unknown layout or frames.
    """
    check_name(name)
    chosen = FramePlan.parse(frames)
    _check_out(root, out)
    with PackingPool(workers or len(os.sched_getaffinity(0))) as pool:
        pool.expect(root, shard_bytes)
        scan = reader(layout).scan(root)
        options = Options(
            name=name,
            licence=licence or scan.licence,
            limits=limits or ImageLimits(),
            frames=chosen,
            shard_bytes=shard_bytes,
        )
        _check_licences(root, scan, options)
        with _told(out), journal_beside(out) as journal:
            how = [layout, name, options.licence, options.limits.model_dump(), shard_bytes, frames, FORMAT]
            parts, resumed = _parts(scan, journal, sha256_json(how), pool, options)
            seen = SeenImages()
            later = [seen.take_piece(part) for part in parts]
            refused = sorted([*scan.refused, *(one for part in parts for one in part.refused), *seen.contradictions])
            if len(seen.first) == len(seen.contradicting):
                first = f"; first: {refused[0].source}: {refused[0].reason}" if refused else ""
                raise DataError(
                    f"{root}: all {len(refused)} images were refused{first}", "check the dataset and its labels"
                )
            with replacing(out) as beside:
                beside.mkdir()
                counted = _Counts()
                shards = _assemble(parts, later, {key.hex() for key in seen.contradicting}, beside, counted)
                index = _index(name, layout, scan, counted, shards, refused, seen.duplicates, beside)
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
        duplicates=tuple(seen.duplicates),
        unrecognised=len(scan.unrecognised),
        resumed=resumed,
    )


def _check_out(root: Path, out: Path) -> None:
    """Packing replaces `out`: nothing else may be lost with it."""
    here, there = root.resolve(), out.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise DataError(f"output {out} and the raw dataset {root} lie inside each other", "pack into another folder")
    check_replaceable(out)


def _check_licences(root: Path, scan: Scan, options: Options) -> None:
    unlicensed = [s.source for s in scan.samples if not (s.licence or options.licence)]
    if unlicensed:
        raise DataError(
            f"{root} does not say the licence of {len(unlicensed)} images, first {min(unlicensed)}",
            "pass --licence with an SPDX id or the dataset's terms",
        )


def _parts(scan: Scan, journal: Path, how: str, pool: PackingPool, options: Options) -> tuple[list[Finished], int]:
    """All pieces, packed, and the number of samples that an earlier run had dealt with."""
    samples = in_order(scan.samples)
    pieces, listing = plan(samples, options.shard_bytes)
    left = missing(journal, {"samples": len(samples), "listing": listing, "options": how}, pieces)
    resumed = len(samples) - sum(len(piece.samples) for piece in left)
    progress = Progress("ingest", total=len(samples), done=resumed)
    pool.pack(left, journal, options, progress.advance)
    return [finished(piece_folder(journal, piece)) for piece in pieces], resumed


def _assemble(
    parts: list[Finished], later: list[list[int]], contradicting: set[str], beside: Path, counted: _Counts
) -> list[ShardFile]:
    """Moves the shards of all pieces into the dataset folder and writes its manifest.

    Left out are the rows `later` of each piece, whose bytes an earlier piece has, and `contradicting` ids.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    (beside / SHARDS_DIR).mkdir()
    shards: list[ShardFile] = []
    drop = pa.array(sorted(contradicting), pa.string())

    def tables() -> Iterator[pa.Table]:
        for part, doubles in zip(parts, later, strict=True):
            rows = part.rows()
            keep = ~pc.is_in(rows["sample_id"], value_set=drop).to_numpy()
            keep[doubles] = False
            place = np.zeros(len(rows), dtype=rows.schema.field("row").type.to_pandas_dtype())
            names = np.full(len(rows), "", dtype=object)
            start = 0
            for shard in part.shards:
                mine = slice(start, start := start + shard.rows)
                if not keep[mine].any():
                    continue
                made = _taken(part.shard(shard), shard, keep[mine], beside, len(shards))
                shards.append(made)
                place[mine] = np.cumsum(keep[mine]) - 1
                names[mine] = made.name
            for name, values in (("shard", names), ("row", place)):
                at = rows.schema.get_field_index(name)
                rows = rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))
            kept = rows.filter(keep)
            counted.add(kept)
            yield kept

    write_manifest(beside / MANIFEST_FILE, tables())
    return shards


def _taken(source: Path, shard: ShardFile, keep: Any, beside: Path, number: int) -> ShardFile:
    """A shard under its number in the dataset, with the rows to `keep` only."""
    import pyarrow.parquet as pq

    if keep.all():
        made = replace(shard, name=shard_name(number))
        # Linked, not moved: a run that is killed here finds its pieces whole.
        (beside / SHARDS_DIR / made.name).hardlink_to(source)
        return made
    with ShardWriter(beside, shard.bytes, first=number) as writer, pq.ParquetFile(source) as file:
        row = 0
        for batch in file.iter_batches(batch_size=64):
            for sample_id, image in zip(batch["sample_id"].to_pylist(), batch["image"].to_pylist(), strict=True):
                if keep[row]:
                    writer.add(sample_id, image)
                row += 1
    return writer.files[0]


@dataclass
class _Counts:
    """Counts over the rows, for the index."""

    rows: int = 0
    subjects: set[str] = field(default_factory=set)
    licences: Counter[str] = field(default_factory=Counter)
    classes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    selected: Counter[tuple[str, str]] = field(default_factory=Counter)
    synthetic: bool = True

    def add(self, rows: pa.Table) -> None:
        """Counts the rows of a piece."""
        self.rows += len(rows)
        self.subjects.update(rows["subject_id"].unique().to_pylist())
        self.synthetic &= bool(rows["synthetic"].to_numpy().all())
        for row in rows.group_by(["licence"]).aggregate([([], "count_all")]).to_pylist():
            self.licences[row["licence"]] += row["count_all"]
        classes = rows.group_by(["domain", "split", "spoof_type", "pai_species"]).aggregate([([], "count_all")])
        for row in classes.to_pylist():
            self.classes[row["domain"], row["split"], row["spoof_type"]] += row["count_all"]
            self.selected[row["pai_species"], row["domain"]] += row["count_all"]


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
    return {
        "format": FORMAT,
        "name": name,
        "description": scan.description,
        "layout": layout,
        "synthetic": counted.synthetic,
        "licences": dict(sorted(counted.licences.items())),
        "rows": counted.rows,
        "subjects": len(counted.subjects),
        "counts": class_counts(counted.classes),
        "shards": {s.name: {"ids_sha256": s.ids_sha256, "rows": s.rows, "bytes": s.bytes} for s in shards},
        "manifest_sha256": sha256_file(beside / MANIFEST_FILE),
        "refused": [r._asdict() for r in refused],
        "duplicates": [d._asdict() for d in duplicates],
        "unrecognised": {"count": len(scan.unrecognised), "first": list(scan.unrecognised[:NAMED_FILES])},
        "notes": list(scan.notes),
    }


@contextmanager
def _told(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineError(
                f"no disk space left for {out}; the dataset is as it was", "free some and pack again, or pack elsewhere"
            ) from error
        raise
    except BrokenProcessPool as error:
        raise DataError(
            f"a process that packs {out} was killed, perhaps since memory was short; what it had finished is kept",
            "pack again with fewer workers: it goes on where it was stopped",
        ) from error
