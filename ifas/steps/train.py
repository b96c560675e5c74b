"""train: captioned manifest + base model + recipe -> model directory and training record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from ifas.core.config import RunConfig
from ifas.core.errors import ConfigError, DataError
from ifas.core.manifest import read_manifest
from ifas.core.records import StepResult
from ifas.steps.contract import Context


def run(config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context) -> StepResult:
    """Trains on the train split of the source domains; resumes from the last checkpoint after a crash."""
    from ifas.data.shards import ShardImages
    from ifas.training.driver import train

    manifest = read_manifest(inputs["captions"], captioned=True)
    domains = config.protocol.source_domains
    if not domains:
        raise ConfigError(
            "protocol.source_domains is empty: nothing to train on",
            f"name some of: {', '.join(sorted(manifest['domain'].unique()))}",
        )
    rows = manifest[(manifest["split"] == "train") & manifest["domain"].isin(domains)].reset_index(drop=True)
    if rows.empty:
        raise DataError(
            f"no training images in the domains {', '.join(domains)}",
            f"the dataset has: {', '.join(sorted(manifest['domain'].unique()))}",
        )
    record = train(
        config.model,
        config.train,
        rows,
        ShardImages(inputs["dataset"]),
        work=context.work,
        out=outputs["model"],
        run_name=context.work.name,
    )
    facts = dataclasses.asdict(record)
    counts = rows["spoof_type"].value_counts()
    facts["images"] = {"total": len(rows), **{str(k): int(v) for k, v in counts.items()}}
    facts["subjects"] = int(rows["subject_id"].nunique())
    return StepResult(summary=record.summary, facts=facts)
