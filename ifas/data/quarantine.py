"""New spoof data enters a dataset in quarantine; a named person other than its submitter releases it after validation.

The index of the dataset, `dataset.json`, holds the record of every batch under `batches`: who delivered and added it,
when, how many rows, a hash over its rows, and later who released it, why and on which evidence. Adding and releasing
are revisions of the dataset in the registry; images are stored once.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.errors import DataError, unknown_key
from ifas.core.files import sha256_file, sha256_json, write_json
from ifas.core.imaging import ImageLimits
from ifas.core.manifest import DATASET_FILE, MANIFEST_FILE, SHARDS_DIR, read_manifest
from ifas.core.picture_inspection import Inspection, inspect_pictures
from ifas.core.release_status import CANARY, QUARANTINED, RELEASED, batch_name, source_of
from ifas.data.batches import SAMPLES_JSONL, BatchRefused, read_batch, same_picture_other_label
from ifas.data.dataset import read_index
from ifas.data.hashes import hashes
from ifas.data.media import read_limited
from ifas.data.pack import PackReport, pack
from ifas.data.registry import Published, Registry
from ifas.data.revisions import read_record, require
from ifas.data.shards import ShardImages
from ifas.data.tables import manifest_schema, write_manifest

if TYPE_CHECKING:
    import pandas as pd

    from ifas.data.readers import RawSample

#: Rows that one source may hold in quarantine and released together, unless the caller says otherwise.
MAX_ROWS = 10_000


@dataclass(frozen=True)
class Added:
    """What `add` did. `refused` are images that could not be decoded: left out, the rest went in."""

    batch: str
    rows: int
    status: str
    duplicates: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    published: Published | None


def add(
    registry: Registry,
    dataset: str,
    root: Path,
    *,
    source: str,
    species: str,
    domain: str,
    by: str,
    licence: str,
    canary: bool = False,
    max_rows: int = MAX_ROWS,
    dry_run: bool = False,
) -> Added:
    """Adds the images at `root` as a batch: quarantined, or as canaries that are never trained on.

    Raises:
        BatchRefused: unlabelled or contradicting rows, all listed; nothing was added.
        DataError: an unusable source or person, the source's cap is reached, or no image can be decoded.
        RegistryError: no such registry or dataset.
    """
    by = _person(by)
    with _one_at_a_time(registry), tempfile.TemporaryDirectory(prefix="ifas-batch-") as scratch:
        here = Path(scratch)
        registry.fetch(dataset, "HEAD", here / "base")
        index = read_index(here / "base")
        manifest = read_manifest(here / "base")
        records: dict[str, Any] = index.get("batches", {})
        number = 1 + sum(source_of(name) == source for name in records)
        name = batch_name(source, number)
        known = dict(zip(manifest["sample_id"], manifest["pai_species"], strict=True))
        batch = read_batch(root, name=name, species=species, domain=domain, licence=licence, known=known)
        held = sum(r["rows"] for n, r in records.items() if source_of(n) == source and r["status"] != CANARY)
        if not canary and held + len(batch.samples) > max_rows:
            raise DataError(
                f"source {source} holds {held} rows, {len(batch.samples)} more pass its cap of {max_rows}",
                "release nothing of it unseen; raise --max-rows if the source is trusted",
            )
        found = [*inspect_pictures(partial(read_limited, sample.path, ImageLimits()) for sample in batch.samples)]
        inspected = {sample.source: one for sample, one in zip(batch.samples, found, strict=True)}
        report, called = _packed(
            [s for s in batch.samples if inspected[s.source].phash], here, licence, root, inspected
        )
        fresh = read_manifest(report.path)
        fresh["source"] = fresh["source"].map(called)
        contradicting = same_picture_other_label(
            fresh.assign(phash=[inspected[source].phash for source in fresh["source"]]),
            manifest.assign(phash=hashes(manifest, ShardImages(here / "base"), index)),
        )
        if contradicting:
            raise BatchRefused(root, contradicting, "look at both pictures; correct the label or remove the row")
        status = CANARY if canary else QUARANTINED
        record = {
            "source": source,
            "species": species,
            "domain": domain,
            "status": status,
            "rows": len(fresh),
            "rows_sha256": rows_hash(fresh),
            "added_by": by,
            "added_at": _now(),
        }
        refused = (
            *((source, one.reason) for source, one in inspected.items() if one.reason),
            *((called[refusal.source], refusal.reason) for refusal in report.refused),
        )
        if dry_run:
            return Added(name, len(fresh), status, batch.duplicates, refused, None)
        fresh = fresh.assign(dataset=index["name"], batch=name, status=status)
        _append(here / "base", index, manifest, report.path, fresh)
        index["batches"] = {**records, name: record}
        _sealed(here / "base", index)
        published = registry.publish(here / "base", message=f"{dataset}: batch {name} ({status}), {len(fresh)} images")
        return Added(name, len(fresh), status, batch.duplicates, refused, published)


def release(
    registry: Registry, dataset: str, batch: str, *, by: str, reason: str, evidence: Mapping[str, Any]
) -> Published:
    """Opens a quarantined batch to training and records who did it, why and on which evidence.

    Args:
        evidence: of a validation that passed: `run`, `revision`, and `rows_sha256` of the batch as it was validated.

    Raises:
        ConfigError: no such batch; lists the known ones.
        DataError: a canary, released already, the submitter releasing their own batch, no reason, or evidence about
            other rows than the batch has now.
    """
    by = _person(by)
    if not reason.strip():
        raise DataError("a release needs a reason", "pass --reason")
    with _one_at_a_time(registry), tempfile.TemporaryDirectory(prefix="ifas-batch-") as scratch:
        here = Path(scratch) / "base"
        registry.fetch(dataset, "HEAD", here)
        index = read_index(here)
        records: dict[str, Any] = index.get("batches", {})
        if batch not in records:
            raise unknown_key("batch", batch, records)
        record = records[batch]
        if record["status"] == CANARY:
            raise DataError(
                f"{batch} is a canary set: it is never trained on", "add other images as a batch of their own"
            )
        if record["status"] == RELEASED:
            raise DataError(f"{batch} was released by {record['released_by']} at {record['released_at']}", "")
        if by.casefold() == record["added_by"].casefold():
            raise DataError(f"{by} added batch {batch} and can't release it", "ask a second person to look at it")
        manifest = read_manifest(here)
        mine = manifest["batch"] == batch
        if not evidence.get("rows_sha256") == record["rows_sha256"] == rows_hash(manifest[mine]):
            raise DataError(
                f"the validation of run {evidence.get('run')} was about other rows than batch {batch} has",
                "run the pipeline on the dataset's newest revision, then release on that run",
            )
        manifest.loc[mine, "status"] = RELEASED
        _write(here, index, manifest)
        index["batches"] = {
            **records,
            batch: {
                **record,
                "status": RELEASED,
                "released_by": by,
                "released_at": _now(),
                "reason": reason.strip(),
                "evidence": dict(evidence),
            },
        }
        _sealed(here, index)
        return registry.publish(here, message=f"{dataset}: batch {batch} released by {by}")


def records(registry: Registry, dataset: str) -> dict[str, dict[str, Any]]:
    """The records of all batches of the newest revision, by name. Raises RegistryError."""
    repo = Path(registry.path)
    require(repo, "HEAD", dataset)
    found: dict[str, dict[str, Any]] = (read_record(repo, "HEAD", dataset) or {}).get("batches", {})
    return found


def rows_hash(rows: pd.DataFrame) -> str:
    """SHA-256 over what a batch's rows say, their status apart."""
    columns = ("sample_id", "subject_id", "split", "label", "pai_species", "domain")
    return sha256_json(sorted([str(v) for v in row] for row in rows[list(columns)].itertuples(index=False)))


def _packed(
    samples: Sequence[RawSample], here: Path, licence: str, root: Path, inspected: Mapping[str, Inspection]
) -> tuple[PackReport, dict[str, str]]:
    """The batch as a dataset folder of its own, and what its files are called. Links stand in for delivered files."""
    if not samples:
        first = next(f"{source}: {one.reason}" for source, one in inspected.items())
        raise DataError(f"{root}: none of {len(inspected)} images can be decoded; first: {first}", "check the delivery")
    staged = here / "staged"
    called = {}
    lines = []
    for number, sample in enumerate(samples):
        link = staged / f"{number:06d}{Path(sample.path).suffix.lower()}"
        link.parent.mkdir(exist_ok=True)
        os.symlink(Path(sample.path).resolve(), link)
        called[link.name] = sample.source
        lines.append(
            {
                "path": link.name,
                "domain": sample.domain,
                "subject_id": sample.subject_id,
                "media_id": sample.media_id,
                "split": sample.split,
                "pai_species": sample.pai_species,
                "device": sample.device,
                "environment": sample.environment,
                "illumination": sample.illumination,
                "face_box": list(sample.face_box) if sample.face_box else None,
                "licence": licence,
                "synthetic": sample.synthetic,
                "attack": sample.attack,
            }
        )
    (staged / SAMPLES_JSONL).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return pack("folder", staged, here / "batch", name="batch", licence=licence), called


def _append(base: Path, index: dict[str, Any], manifest: pd.DataFrame, batch: Path, fresh: pd.DataFrame) -> None:
    """Shards of the batch go behind those of the dataset; rows too. The images that are there stay untouched."""
    import pandas as pd

    packed = read_index(batch)
    renamed = {}
    for number, shard in enumerate(sorted(packed["shards"]), start=len(index["shards"])):
        renamed[shard] = f"shard-{number:05d}.parquet"
        os.rename(batch / SHARDS_DIR / shard, base / SHARDS_DIR / renamed[shard])
        index["shards"][renamed[shard]] = packed["shards"][shard]
    fresh = fresh.assign(shard=fresh["shard"].map(renamed))
    _write(base, index, pd.concat([manifest, fresh], ignore_index=True))


def _write(base: Path, index: dict[str, Any], manifest: pd.DataFrame) -> None:
    """The manifest and what the index says of it."""
    import pyarrow as pa

    schema = manifest_schema()
    tables = (
        pa.Table.from_pandas(rows, schema=schema, preserve_index=False).replace_schema_metadata(None)
        for _, rows in manifest.groupby("shard", sort=False)
    )
    write_manifest(base / MANIFEST_FILE, tables)
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for (domain, split, kind), n in sorted(
        Counter(zip(*(manifest[c] for c in ("domain", "split", "spoof_type")), strict=True)).items()
    ):
        counts.setdefault(domain, {}).setdefault(split, {})[kind] = n
    index |= {
        "rows": len(manifest),
        "subjects": int(manifest["subject_id"].nunique()),
        "counts": counts,
        "licences": dict(sorted(Counter(manifest["licence"]).items())),
        "synthetic": bool(manifest["synthetic"].all()),
        "manifest_sha256": sha256_file(base / MANIFEST_FILE),
    }


def _sealed(base: Path, index: dict[str, Any]) -> None:
    write_json(base / DATASET_FILE, index)


def _person(name: str) -> str:
    if not name.strip():
        raise DataError("nobody is named", "pass --by with your name")
    return name.strip()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _one_at_a_time(registry: Registry) -> Iterator[None]:
    """Between fetching the newest revision and publishing the next one nobody else may add or release."""
    folder = Path(registry.path) / ".git"
    if not folder.is_dir():
        raise DataError(f"{registry.path} is not a dataset registry on this machine", "name its folder with --registry")
    with (folder / "ifas-batches.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
