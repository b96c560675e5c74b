"""Training from a manifest to a model directory."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.compute.connection import of_cluster
from ifas.core import storage
from ifas.core.config import ModelConfig, TrainConfig
from ifas.core.errors import ConfigError, TrainingError
from ifas.core.files import read_json, remove, replacing, sha256_tree, write_json
from ifas.core.manifest import ImageSource
from ifas.training.curve import CURVE_FILE, left_plateau, read
from ifas.training.job import FACTS_FILE, FINAL, Job, Row, fingerprint, rows_of
from ifas.training.record import TRAINING_FILE, TrainingRecord
from ifas.training.startup import StartLog, fetch_log
from ifas.training.weights import drawn_shares, sample_weights

if TYPE_CHECKING:
    import pandas as pd

VERSIONS = ("torch", "transformers", "peft", "deepspeed", "ray")


def fit(job: Job, began: float) -> None:
    """Trains `job` with Ray: see `ray_trainer.fit`."""
    from ifas.training.ahead import computed_ahead
    from ifas.training.ray_cluster import cluster

    with computed_ahead(job), cluster(job.train):
        from ifas.training import ray_trainer

        ray_trainer.fit(job, began)


def train(
    model_config: ModelConfig,
    config: TrainConfig,
    manifest: pd.DataFrame | tuple[Row, ...],
    images: ImageSource,
    *,
    work: Path,
    out: Path,
    run_name: str,
    beside: str = "",
    base: Path | None = None,
) -> TrainingRecord:
    """Fine-tunes the model and writes it to `out`: safetensors, config, tokenizer, processor, `training.json` and
    `curve.jsonl`.

    Checkpoints are kept in `work` under `run_name` and a fingerprint of configuration and rows. A call with the same
    arguments after a kill, of a worker or of this process, goes on from the last one; its weights are those of an
    uninterrupted run. Those on this machine are removed once `out` is written; those in a store stay.

    Args:
        model_config: what is trained.
        config: how.
        manifest: captioned rows to train on, already filtered by split and domain; or training samples made of them.
        images: where their bytes come from; goes to the workers by pickle.
        work: folder for the run; with `train.features`, those are kept beside it. Where this process is a job of a Ray
            cluster, each machine has one of its own there, and checkpoints and model go by `train.storage`.
        out: model directory, written whole or not at all.
        run_name: of the run.
        beside: URI in place of `train.storage`. The caller removes what is there when `out` is safe.
        base: model directory to go on from; None begins with the model's sources.

    Raises:
        DataError: no rows, a class or a caption is missing, an image can't be read, or the store of checkpoints fails.
        ConfigError: the model's sources are not there, or the workers of a cluster have no store.
        TrainingNeedsSpace: no disk space.
        TrainingError: no memory, workers failed too often, or the loss is not finite.
    """
    began = time.time()
    rows = manifest if isinstance(manifest, tuple) else rows_of(manifest)
    joined = of_cluster()
    if joined and not (config.storage or beside):
        raise ConfigError(
            "the workers of a Ray cluster share no disk with each other, and train.storage is empty",
            "set train.storage to an s3:// prefix, to a folder that is mounted on all machines, or give the step an "
            "output in an object store",
        )
    from ifas.model.sources import pinned

    model_config = pinned(model_config)
    name = f"{run_name}-{fingerprint(model_config, config, rows, base)}"
    run = work.absolute() / name
    job = Job(model=model_config, train=config, rows=rows, images=images, run=run, beside=beside, joined=joined)
    if base is not None:
        job = replace(job, base=_for_all(base.absolute(), job))
    run.mkdir(parents=True, exist_ok=True)
    for unfinished in run.glob(".*.part"):
        remove(unfinished)
    # There is a finished model if a kill prevented only what follows; training again would give the same.
    _fetch_final(job)
    if not (run / FINAL).is_dir():
        # Report now what would otherwise fail after Ray has started.
        sample_weights(rows, config)
        if base is None:
            _prepare_sources(model_config)
        with storage.patient():
            fit(job, began)
            _fetch_final(job)
    if not (run / FINAL).is_dir():
        raise TrainingError(f"training ended without a model in {run}", "remove that folder and train again")
    facts = read_json(run / FINAL / FACTS_FILE)
    starts = StartLog(job).lines()
    curve = read(run / CURVE_FILE)
    last = next((line for line in reversed(curve) if "loss" in line), None)
    if last is None:
        raise TrainingError(f"training in {run} has no step with a finite loss", "look at the notes above")
    with replacing(out) as made:
        shutil.copytree(run / FINAL, made, ignore=shutil.ignore_patterns(FACTS_FILE))
        shutil.copy(run / CURVE_FILE, made / CURVE_FILE)
        record = TrainingRecord(
            run=name,
            steps=config.steps,
            samples=len(rows),
            batch=config.global_batch,
            seconds=round(time.time() - began, 3),
            start_seconds=round(max(0.0, facts["began"] - began), 3),
            start_up=facts["start_up"],
            samples_per_second=round(facts["samples_per_second"], 3),
            loader_samples_per_second=round(facts["loader_samples_per_second"], 3),
            demand_samples_per_second=round(facts["demand_samples_per_second"], 3),
            starts=[line["step"] for line in starts],
            resumed_from=starts[-1]["step"] if len(starts) > 1 else None,
            restarts=len(starts) - 1,
            lost_steps=sum(line["lost"] for line in starts),
            skipped_batches=sum("skipped" in line for line in curve),
            loss=last["loss"],
            judgment=last["judgment"],
            interpretation=last["interpretation"],
            species={name: tuple(means) for name, means in last["species"].items()},
            left_plateau=_left_plateau(curve, rows, config),
            average=config.average,
            parameters=facts["parameters"],
            trainable=facts["trainable"],
            alpha=config.alpha,
            precision=config.precision,
            zero_stage=config.zero_stage,
            workers=config.workers,
            threads=facts["threads"],
            device=facts["device"],
            versions={package: metadata.version(package) for package in VERSIONS},
        )
        write_json(made / TRAINING_FILE, record.model_dump(mode="json"))
    remove(run)
    return record


def _fetch_final(job: Job) -> None:
    """Brings the finished model and the run's records here, if they are in the store only."""
    if job.uri and not (job.run / FINAL).is_dir() and storage.exists(f"{job.uri}/{FINAL}.done"):
        storage.fetch(f"{job.uri}/{FINAL}", job.run / FINAL)
        fetch_log(job)


def _for_all(base: Path, job: Job) -> str:
    """A model directory by a name that all ranks can read."""
    if not job.joined:
        return str(base)
    uri = f"{job.uri}/base"
    storage.store(base, uri)
    return storage.pinned(uri, sha256_tree(base))


def _left_plateau(curve: list[dict[str, Any]], rows: tuple[Row, ...], config: TrainConfig) -> int | None:
    if any(row.question for row in rows):  # turns of alignment ask about other things as well
        return None
    return left_plateau(curve, drawn_shares(rows, config)["live"])


def _prepare_sources(model_config: ModelConfig) -> None:
    """Converts packaged weights once, not in each worker, and reports a missing source before Ray starts."""
    from ifas.model.sources import resolve

    vision, language = model_config.vision, model_config.language
    if vision.source and not Path(resolve(vision.source)).is_dir():
        from ifas.model.vision import tower_config

        tower_config(vision)
    if language.source and not Path(resolve(language.source)).is_dir():
        from ifas.model.language import text_config

        text_config(language)
