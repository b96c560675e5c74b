"""A delivery becomes a batch of a dataset, quarantined or a canary set, or is refused as a whole."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ifas.core.errors import DataError
from ifas.core.imaging import ImageLimits
from ifas.core.manifest import read_manifest
from ifas.core.picture_inspection import inspect_pictures
from ifas.core.release_status import CANARY, QUARANTINED, batch_name, source_of
from ifas.core.taxonomy import spoof_type_of
from ifas.data.dataset import read_index
from ifas.data.hashes import hashes
from ifas.data.media import read_limited
from ifas.data.quarantine.appending import append, packed
from ifas.data.quarantine.delivery import BatchRefused, check_delivery, read_delivery, same_picture_other_label
from ifas.data.quarantine.record import now, one_at_a_time, person, rows_hash
from ifas.data.registry import Published, Registry
from ifas.data.shards import ShardImages

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
        RegistryError: no such registry or dataset, or someone published a new revision of it meanwhile.
    """
    # What needs no look at the dataset is checked before it is fetched.
    by = person(by)
    spoof_type_of(species)
    batch_name(source, 1)
    for what, value in (("domain", domain), ("licence", licence)):
        if not value.strip():
            raise DataError(f"the batch has no {what}", f"name it with --{what}")
    delivery = read_delivery(root)
    with one_at_a_time(registry), tempfile.TemporaryDirectory(prefix="ifas-batch-") as scratch:
        here = Path(scratch)
        base = registry.fetch(dataset, "HEAD", here / "base").revision
        index = read_index(here / "base")
        manifest = read_manifest(here / "base")
        records: dict[str, Any] = index.get("batches", {})
        number = 1 + sum(source_of(name) == source for name in records)
        name = batch_name(source, number)
        known = dict(zip(manifest["sample_id"], manifest["pai_species"], strict=True))
        batch = check_delivery(delivery, name=name, species=species, domain=domain, licence=licence, known=known)
        held = sum(r["rows"] for n, r in records.items() if source_of(n) == source and r["status"] != CANARY)
        if not canary and held + len(batch.samples) > max_rows:
            raise DataError(
                f"source {source} holds {held} rows, {len(batch.samples)} more pass its cap of {max_rows}",
                "release nothing of it unseen; raise --max-rows if the source is trusted",
            )
        found = [*inspect_pictures(partial(read_limited, sample.path, ImageLimits()) for sample in batch.samples)]
        inspected = {sample.source: one for sample, one in zip(batch.samples, found, strict=True)}
        whole = [s for s in batch.samples if inspected[s.source].phash]
        if not whole:
            first = next(f"{source}: {one.reason}" for source, one in inspected.items())
            raise DataError(
                f"{root}: none of {len(inspected)} images can be decoded; first: {first}", "check the files"
            )
        report, called = packed(whole, here, licence)
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
            "added_at": now(),
        }
        refused = (
            *((source, one.reason) for source, one in inspected.items() if one.reason),
            *((called[refusal.source], refusal.reason) for refusal in report.refused),
        )
        if dry_run:
            return Added(name, len(fresh), status, batch.duplicates, refused, None)
        fresh = fresh.assign(dataset=index["name"], batch=name, status=status)
        index["batches"] = {**records, name: record}
        append(here / "base", index, manifest, report.path, fresh)
        message = f"{dataset}: batch {name} ({status}), {len(fresh)} images"
        published = registry.publish(here / "base", message=message, onto=base)
        return Added(name, len(fresh), status, batch.duplicates, refused, published)
