"""A quarantined batch is opened to training: by a second person, for a reason, on evidence about these very rows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifas.core.errors import DataError, unknown_key
from ifas.core.manifest import read_manifest
from ifas.core.release_status import CANARY, RELEASED
from ifas.data.dataset import read_index
from ifas.data.quarantine.appending import write
from ifas.data.quarantine.record import now, one_at_a_time, person, records, rows_hash
from ifas.data.registry import Published, Registry


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
        RegistryError: no such registry or dataset, or someone published a new revision of it meanwhile.
    """
    by = person(by)
    if not reason.strip():
        raise DataError("a release needs a reason", "pass --reason")
    with one_at_a_time(registry), tempfile.TemporaryDirectory(prefix="ifas-batch-") as scratch:
        known = records(registry, dataset)
        _check(known, batch, by, evidence)
        here = Path(scratch) / "base"
        base = registry.fetch(dataset, "HEAD", here).revision
        index, manifest = read_index(here), read_manifest(here)
        mine = manifest["batch"] == batch
        if index.get("batches") != known or rows_hash(manifest[mine]) != known[batch]["rows_sha256"]:
            raise DataError(f"batch {batch} has other rows than its record says", "run it again")
        manifest.loc[mine, "status"] = RELEASED
        released = {
            "status": RELEASED,
            "released_by": by,
            "released_at": now(),
            "reason": reason.strip(),
            "evidence": dict(evidence),
        }
        index["batches"] = {**known, batch: {**known[batch], **released}}
        write(here, index, manifest)
        return registry.publish(here, message=f"{dataset}: batch {batch} released by {by}", onto=base)


def _check(known: Mapping[str, Mapping[str, Any]], batch: str, by: str, evidence: Mapping[str, Any]) -> None:
    """Raises ConfigError or DataError where the record of a batch speaks against its release."""
    if batch not in known:
        raise unknown_key("batch", batch, known)
    record = known[batch]
    if record["status"] == CANARY:
        raise DataError(f"{batch} is a canary set: it is never trained on", "add other images as a batch of their own")
    if record["status"] == RELEASED:
        raise DataError(f"{batch} was released by {record['released_by']} at {record['released_at']}", "")
    if by.casefold() == record["added_by"].casefold():
        raise DataError(f"{by} added batch {batch} and can't release it", "ask a second person to look at it")
    if evidence.get("rows_sha256") != record["rows_sha256"]:
        raise DataError(
            f"the validation of run {evidence.get('run')} was about other rows than batch {batch} has",
            "run the pipeline on the dataset's newest revision, then release on that run",
        )
