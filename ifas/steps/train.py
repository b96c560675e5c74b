"""train: captioned manifest + base model + recipe -> model directory and training record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core import storage
from ifas.core.config import RunConfig
from ifas.core.errors import ConfigError, DataError
from ifas.core.files import read_json
from ifas.core.manifest import read_manifest
from ifas.core.records import UNREADABLE_FILE, WEIGHTS_FILE, StepResult
from ifas.core.release_status import capped, released
from ifas.steps import cues
from ifas.steps.contract import Context

if TYPE_CHECKING:
    import pandas as pd

    from ifas.core.manifest import ImageSource
    from ifas.training.record import TrainingRecord

IN_IDENTITY = cues.IN_IDENTITY


def identity(config: RunConfig, _inputs: Mapping[str, str]) -> dict[str, Any]:
    """The base weights, and what alignment may ask about."""
    from ifas.model.sources import weights_of

    found: dict[str, Any] = {
        "base weights of model.vision": weights_of(config.model.vision.source),
        "base weights of model.language": weights_of(config.model.language.source),
    }
    if config.align.enabled:
        found["cues"] = cues.identity()
    return found


def run(config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context) -> StepResult:
    """Trains on the train split of the source domains, then aligns if `align.enabled`; resumes after a crash."""
    import pandas as pd

    from ifas.data.shards import ShardImages
    from ifas.training.attack_prior import measure_prior
    from ifas.training.driver import train
    from ifas.training.record import TRAINING_FILE, TrainingRecord

    manifest = read_manifest(inputs["captions"], captioned=True)
    domains = config.protocol.source_domains
    if not domains:
        raise ConfigError(
            "protocol.source_domains is empty: nothing to train on",
            f"name some of: {', '.join(sorted(manifest['domain'].unique()))}",
        )
    bad = pd.read_parquet(inputs["validation"] / UNREADABLE_FILE)
    manifest = manifest[~manifest["sample_id"].isin(bad["sample_id"])]
    without_face = _of_train(manifest[manifest["face_refused"].notna()], domains)["face_refused"].value_counts()
    manifest = manifest[manifest["face_refused"].isna()]
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
    aligned = config.align.enabled
    images = ShardImages(inputs["dataset"], context.origin("dataset"))
    first = context.work / "first" if aligned else outputs["model"]
    kept = f"{context.uri}/first" if aligned and context.uri else ""
    if kept and not first.exists() and storage.exists(f"{kept}.done"):
        storage.fetch(kept, first)
    if (first / TRAINING_FILE).is_file():  # found after a kill in the second stage
        record = TrainingRecord.model_validate(read_json(first / TRAINING_FILE))
    else:
        record = train(
            config.model,
            config.train,
            rows,
            images,
            work=context.work,
            beside=context.uri,
            out=first,
            run_name=context.work.name,
        )
    dev = released(manifest[(manifest["split"] == "dev") & manifest["domain"].isin(domains)])
    with storage.patient():
        if kept and not storage.exists(f"{kept}.done"):
            storage.store(first, kept)
            storage.store(first / TRAINING_FILE, f"{kept}.done")
        extra = _align(config, manifest, rows, dev, images, first, outputs["model"], context) if aligned else {}
        prior = measure_prior(outputs["model"], dev, images)
    counts = {str(kind): int(n) for kind, n in rows["spoof_type"].value_counts().items()}
    resumed = f", resumed at step {record.resumed_from}" if record.resumed_from is not None else ""
    return StepResult(
        summary=f"{record.steps} steps on {record.samples} images by {record.workers} workers{resumed}, loss judgment "
        f"{record.judgment:.3f}, interpretation {record.interpretation:.3f}, {record.samples_per_second:.1f} samples/s"
        f"{_left_out(without_face)}"
        f"{_starved(record)}"
        f"{_alignment_summary(extra)}",
        facts={
            **record.model_dump(mode="json"),
            "images": {"total": len(rows), **counts},
            "subjects": int(rows["subject_id"].nunique()),
            "domains": list(domains),
            "over_cap": over_cap,
            "attack_prior": {attack: round(share, 4) for attack, share in prior.items()},
            "unreadable": len(_of_train(bad, domains)),
            "without_face": {str(reason): int(n) for reason, n in without_face.sort_index().items()},
            **({"alignment": _facts(extra)} if extra else {}),
        },
    )


def _left_out(reasons: pd.Series) -> str:
    """How many images have no face that can be judged, and why."""
    if not len(reasons):
        return ""
    named = ", ".join(f"{reason} {n}" for reason, n in reasons.sort_index().items())
    return f"; {int(reasons.sum())} images left out, which have no face that can be judged ({named})"


def _starved(record: TrainingRecord) -> str:
    """A warning in the summary if the model waits for its images."""
    loader, demand = record.loader_samples_per_second, record.demand_samples_per_second
    return f" (the loaders manage {loader:.1f} of the {demand:.1f} it could take: more train.loaders)" * (
        loader < demand
    )


def _of_train(rows: pd.DataFrame, domains: Sequence[str]) -> pd.DataFrame:
    """Released rows of the train split of these domains."""
    return released(rows[(rows["split"] == "train") & rows["domain"].isin(domains)])


def _align(
    config: RunConfig,
    manifest: pd.DataFrame,
    rows: pd.DataFrame,
    dev: pd.DataFrame,
    images: ImageSource,
    first: Path,
    out: Path,
    context: Context,
) -> dict[str, Any]:
    """Runs the second stage: trained on the rows of the first, measured on dev rows of the source domains."""
    from ifas.training.alignment.stage import align

    return align(
        config.align,
        config.model,
        config.train,
        rows,
        dev,
        images,
        cues.cues(),
        held_out=set(manifest.loc[manifest["split"] != "train", "sample_id"].astype(str)),
        first=first,
        work=context.work,
        beside=context.uri,
        out=out,
        run_name=context.work.name,
    )


def _alignment_summary(found: dict[str, Any]) -> str:
    """What the summary says of the second stage."""
    if not found:
        return ""
    changes = [
        f"{name.replace('_', ' ')} {scores[name]['before']['value']} -> {scores[name]['after']['value']}"
        for scores in [found.get("scores", {})]
        for name in ("right_attack", "invented_medium", "verdict_accuracy")
        if name in scores
    ]
    return f"; alignment {'kept' if found['kept'] else 'not kept'}: {'; '.join([found['why'], *changes])}"


def _facts(found: dict[str, Any]) -> dict[str, Any]:
    """The parts of `alignment.json` that lineage and model card show: one short value per line."""
    facts = {"kept": found["kept"], "why": found["why"], "turns": found["turns"]["count"], **found["mined"]}
    for name, one in found.get("scores", {}).items():
        facts[name] = {
            "before": one["before"]["value"],
            "after": one["after"]["value"],
            "interval of the difference": one["interval"],
            "n": one["after"]["n"],
        }
    return facts
