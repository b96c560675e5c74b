"""Releases a quarantined batch, if the lineage of a run shows that its rows passed validation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ifas.core.errors import DataError
from ifas.core.records import LINEAGE_FILE, Lineage

if TYPE_CHECKING:
    from ifas.data.registry import Published, Registry


def release_batch(registry: Registry, dataset: str, batch: str, *, run: Path, by: str, reason: str) -> Published:
    """Checks the run and releases the batch.

    Raises:
        DataError: the run's lineage is missing or altered, is about another dataset or has not seen the batch, or its
            validation did not pass; and what `ifas.data.quarantine.release` raises.
    """
    from ifas.data.quarantine import release

    fix = f"run the pipeline on the newest revision of {dataset}, and name that run's folder"
    file = run / LINEAGE_FILE
    try:
        lineage = Lineage.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise DataError(f"{file} can't be read as the lineage of a run: {error}", fix) from error
    lineage.verify()
    ingest, validation = lineage.of("ingest"), lineage.of("validate")
    if ingest is None or ingest.facts.get("dataset") != dataset:
        raise DataError(f"run {run} is not about the dataset {dataset}", fix)
    # A step that fails leaves no entry, and a blocking rule that fails ends its step.
    if validation is None:
        raise DataError(f"the data of run {run} did not pass validation", fix)
    seen = ingest.facts.get("index", {}).get("batches", {}).get(batch)
    if seen is None:
        raise DataError(f"run {run} has not seen batch {batch}", fix)
    evidence = {
        "run": lineage.run_id,
        "revision": ingest.facts["revision"],
        "rows_sha256": seen["rows_sha256"],
        "validation": validation.summary,
        "lineage": validation.hash,
    }
    return release(registry, dataset, batch, by=by, reason=reason, evidence=evidence)
