"""ingest: dataset registry + revision -> dataset folder (manifest, shards, index), every hash checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifas.core.config import RunConfig
from ifas.core.files import read_json
from ifas.core.manifest import DATASET_FILE, PREVIOUS_MANIFEST_FILE
from ifas.core.records import StepResult
from ifas.steps.contract import Context

#: `permit` decides whether the step may run, and nothing of its result.
IN_IDENTITY = ("ifas.steps.gate", "ifas.steps.ledger")


def identity(config: RunConfig, _inputs: Mapping[str, str]) -> dict[str, Any]:
    """The commit that the configured revision names now: a moved tag is a new dataset."""
    from ifas.data.registry import Registry

    ingest = config.ingest
    return {"revision": Registry(ingest.registry).resolve(ingest.dataset, ingest.revision)}


def permit(config: RunConfig) -> None:
    """Asks the ledger, before anything is trained, whether the run may have its policy; see `policy_of`.

    A run that was sent to a cluster is asked here first.
    """
    from ifas.steps.gate import policy_of
    from ifas.steps.ledger import product_of

    if product := product_of(config):
        policy_of(config, product)


def run(config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context) -> StepResult:
    """Fetches the revision; raises RegistryError or CorruptShardError."""
    from ifas.data.registry import Registry

    ingest = config.ingest
    registry = Registry(ingest.registry)
    fetched = registry.fetch(ingest.dataset, ingest.revision, outputs["dataset"], remote=ingest.remote)
    index = read_json(outputs["dataset"] / DATASET_FILE)
    before = registry.previous(ingest.dataset, fetched.revision)
    if before:
        # What validation measures drift against.
        previous = registry.manifest(ingest.dataset, before)
        previous.to_parquet(outputs["dataset"] / PREVIOUS_MANIFEST_FILE, index=False)
    refused = len(index.get("refused", []))
    return StepResult(
        summary=f"{fetched.rows} images of {ingest.dataset} at {fetched.revision[:10]}"
        + (f", {refused} refused when packed" if refused else ""),
        facts={
            "dataset": ingest.dataset,
            "revision": fetched.revision,
            "dataset_sha256": fetched.dataset_sha256,
            "rows": fetched.rows,
            "previous": before,
            "index": {k: v for k, v in index.items() if k not in ("shards",)},
        },
    )
