"""train: captioned manifest + base model + recipe -> model directory and training record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ifas.core.config import RunConfig
from ifas.core.errors import ConfigError, DataError
from ifas.core.manifest import read_manifest
from ifas.core.records import StepResult
from ifas.core.standing import capped, released
from ifas.steps.contract import Context

if TYPE_CHECKING:
    import pandas as pd


def run(config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context) -> StepResult:
    """Trains on the train split of the source domains; resumes from the last checkpoint after a crash."""
    import pandas as pd

    from ifas.data.shards import ShardImages
    from ifas.training.driver import train
    from ifas.validation.looks import WEIGHTS_FILE
    from ifas.validation.unreadable import UNREADABLE_FILE

    manifest = read_manifest(inputs["captions"], captioned=True)
    domains = config.protocol.source_domains
    if not domains:
        raise ConfigError(
            "protocol.source_domains is empty: nothing to train on",
            f"name some of: {', '.join(sorted(manifest['domain'].unique()))}",
        )
    bad = pd.read_parquet(inputs["validation"] / UNREADABLE_FILE)
    manifest = manifest[~manifest["sample_id"].isin(bad["sample_id"])]
    train_split = _of_train(manifest, domains)
    rows, over_cap = capped(train_split, config.train.max_source_share)
    rows = rows.reset_index(drop=True)
    if config.train.domain_balance:
        weights = pd.read_parquet(inputs["validation"] / WEIGHTS_FILE).set_index("sample_id")["weight"]
        rows["weight"] = rows["sample_id"].map(weights).fillna(1.0)
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
    counts = {str(kind): int(n) for kind, n in rows["spoof_type"].value_counts().items()}
    resumed = f", resumed at step {record.resumed_from}" if record.resumed_from is not None else ""
    return StepResult(
        summary=f"{record.steps} steps on {record.samples} images by {record.workers} workers{resumed}, loss judgment "
        f"{record.judgment:.3f}, interpretation {record.interpretation:.3f}, {record.samples_per_second:.1f} samples/s",
        facts={
            **record.model_dump(mode="json"),
            "images": {"total": len(rows), **counts},
            "subjects": int(rows["subject_id"].nunique()),
            "domains": list(domains),
            "over_cap": over_cap,
            "unreadable": len(_of_train(bad, domains)),
        },
    )


def _of_train(rows: pd.DataFrame, domains: Sequence[str]) -> pd.DataFrame:
    """Released rows of the train split of these domains."""
    return released(rows[(rows["split"] == "train") & rows["domain"].isin(domains)])
