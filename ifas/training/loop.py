"""The training loop of one rank. It does not depend on the launcher (Ray, or a test)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import distributed as dist

from ifas.core import storage
from ifas.core.files import remove, write_json
from ifas.core.progress import emit
from ifas.core.taxonomy import ATTACKS
from ifas.model import tuning
from ifas.model.build import build, load
from ifas.model.compiled import compile_blocks, require_compiler
from ifas.model.fused_norm import fuse
from ifas.model.sizing import device_memory, dtype_of, size, will_not_fit
from ifas.model.whole_clauses import WholeClauses
from ifas.training import ahead, checkpoint
from ifas.training.batches import Batches
from ifas.training.checkpoint import Checkpoints
from ifas.training.engine import Engine, join
from ifas.training.faults import Watch
from ifas.training.job import FACTS_FILE, FINAL, Job
from ifas.training.level_scale import measure_levels
from ifas.training.run_log import RunLog
from ifas.training.startup import StartLog, StartupTimer
from ifas.training.step import take

#: Reports progress to the launcher. Every rank calls it after each checkpoint.
Report = Callable[[dict[str, float]], None]
#: Whether this rank's machine is about to be taken away.
Notice = Callable[[], bool]
Ending = Literal["finished", "preempted"]


def run(
    job: Job,
    report: Report = lambda _: None,
    notice: Notice = lambda: False,
    clock: StartupTimer | None = None,
    free: checkpoint.FreeBytes = checkpoint.free_bytes,
) -> Ending:
    """Trains from the newest checkpoint, or from the start, and writes the model to `FINAL`, below `job.run` and
    `job.uri`. Called by every rank, in its own process.

    The environment holds RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. There may be more or fewer ranks
    than wrote the checkpoint: the global batch, and so the training, stays the same.

    Args:
        job: the same on all ranks.
        report: called after each checkpoint.
        notice: called once per step. If it is true on any rank, all make a checkpoint and return `preempted`.
        clock: timer of this start, if it began before this call.
        free: bytes left on a disk.

    Raises:
        TrainingNeedsSpace: no disk space.
        TrainingError: no memory, or the loss is no longer finite.
        DataError: an image can't be read, or the store of checkpoints can't be reached.
        ConfigError: the model can't be built.
    """
    clock = clock or StartupTimer()
    join(job.train)
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    clock.mark("process group")
    rank = _begin(job, clock, free)
    log = RunLog(job, rank.start) if rank.first else None
    began = time.monotonic()
    ended = _steps(rank, log, report, notice, clock)
    seconds = time.monotonic() - began
    rank.watch.close()
    if log:
        log.close()
    if ended == "finished":
        _export(rank, {**_facts(rank, seconds), "start_up": clock.seconds})
    return ended


@dataclass(frozen=True)
class _Rank:
    """What a rank trains with, ready for the step `start` (from 0)."""

    job: Job
    engine: Engine
    processor: Any
    batches: Batches
    checkpoints: Checkpoints
    watch: Watch
    start: int
    parameters: int
    trainable: int

    @property
    def first(self) -> bool:
        """Whether this rank writes the files that exist once."""
        return dist.get_rank() == 0


def _begin(job: Job, clock: StartupTimer, free: checkpoint.FreeBytes) -> _Rank:
    """Builds the model and the engine, and brings both to where the newest checkpoint left them."""
    config = job.train
    if dist.get_rank() == 0 and config.gpus_per_worker:
        _warn(job)
    if config.compile:
        require_compiler(torch.device("cuda" if config.gpus_per_worker else "cpu"))
    accumulate = job.accumulate(dist.get_world_size())
    # In the training's precision from the start: DeepSpeed would cast it, and make its master copies from that.
    dtype = dtype_of(config)
    model, processor = (
        load(storage.here(job.base), dtype=dtype) if job.base else build(job.model, seed=config.seed, dtype=dtype)
    )
    # What was never shown is never named, see `attack_named`.
    said = {row.attack for row in job.rows if row.attack} or set(job.species)
    shown = [attack for attack in ATTACKS if attack in said]
    processor.attacks = dict.fromkeys(shown, 1 / len(shown))
    if captions := {row.caption for row in job.rows if not row.question}:
        processor.clauses = WholeClauses.of(map(processor.as_written, captions)) if job.model.whole_clauses else None
    parameters = tuning.count(model)["total"]["parameters"]
    tuning.prepare(model, job.model, seed=config.seed)
    trainable = tuning.count(model)["total"]["trainable"]
    if config.gpus_per_worker:
        fuse(model.language)
    model.train()
    if config.compile:
        # Kept features are made in another thread, a few images at a time, and once.
        compile_blocks(model, tower=not config.features)
    clock.mark("model")
    checkpoints = Checkpoints(job.run, job.uri, config.keep_checkpoints, free)
    found = checkpoints.newest()
    groups = tuning.parameter_groups(model, job.model, config.weight_decay)
    engine = Engine(model, groups, config, accumulate, universal=bool(found and found.universal))
    if found:
        checkpoints.restore(engine, found)
    clock.mark("DeepSpeed")
    if config.features:
        ahead.wait(job)
        clock.mark("features")
    batches = Batches(job, processor, dist.get_rank(), dist.get_world_size(), model=model)
    if not model.connector.scale.measured:  # else a checkpoint, or the model of the first stage, has told it
        measure_levels(model, batches)
        clock.mark("levels")
    return _Rank(
        job=job,
        engine=engine,
        processor=processor,
        batches=batches,
        checkpoints=checkpoints,
        watch=Watch(engine, job, found.skipped if found else 0),
        start=found.step if found else 0,
        parameters=parameters,
        trainable=trainable,
    )


def _steps(rank: _Rank, log: RunLog | None, report: Report, notice: Notice, clock: StartupTimer) -> Ending:
    """All steps that are left, or those until a machine is about to be taken away."""
    config = rank.job.train
    for step, micro_batches in enumerate(rank.batches.steps(rank.start, config.steps), rank.start):
        losses = take(rank.engine, step, micro_batches, rank.job, rank.watch, leaving=notice())
        done = step + 1
        if log:
            log.add(done, losses)
        if step == rank.start:
            clock.mark("first step")
            if log:
                emit("note", "train", text=clock.text())
        if done == config.steps:
            break
        if done == 1 or done % config.checkpoint_every == 0 or losses.leaving:
            rank.checkpoints.save(rank.engine, done, skipped=rank.watch.skipped)
            if log:
                log.put()
            if done == 1:
                _rehearse(rank)
            report({"step": done, "judgment": losses.judgment, "interpretation": losses.interpretation})
        if losses.leaving:
            return "preempted"
    return "finished"


def _rehearse(rank: _Rank) -> None:
    """Reads the first checkpoint back and tries to write to the final place: errors come now, not hours later."""
    if written := rank.checkpoints.newest():
        _check_export(rank)
        rank.checkpoints.restore(rank.engine, written)


def _warn(job: Job) -> None:
    """Warns, before anything is loaded, if this run is predicted not to fit the GPU, and says what to change."""
    sizes = size(job.model, job.train)
    if warning := will_not_fit(job.model, job.train, device_memory(job.train), sizes):
        emit("note", "train", text=str(warning))


def _check_export(rank: _Rank) -> None:
    """Raises now if the final model could not be written at the end."""
    job, engine = rank.job, rank.engine
    if rank.first:
        checkpoint.require_space(job.run, engine.model_bytes() + engine.checkpoint_bytes(), rank.checkpoints.free)
        probe = job.run / ".probe.part"
        rank.processor.save_pretrained(probe)
        if job.uri:
            storage.store(probe, f"{job.uri}/.probe")
            storage.delete(f"{job.uri}/.probe")
        remove(probe)
    dist.barrier()


def _facts(rank: _Rank, seconds: float) -> dict[str, Any]:
    """Facts of this start's steps, which took `seconds`; rates in samples per second."""
    job, ranks = rank.job, dist.get_world_size()
    steps = job.train.steps - rank.start
    made = max(1, steps) * job.global_batch / ranks
    return {
        "parameters": rank.parameters,
        "trainable": rank.trainable,
        "threads": torch.get_num_threads(),
        "device": str(rank.engine.device),
        "samples_per_second": steps * job.global_batch / seconds if steps > 0 else 0.0,
        # Over all ranks, each of which makes its own batches: the rates of the loaders and of the model, each alone.
        "loader_samples_per_second": made / max(rank.batches.seconds, 1e-9) * ranks,
        "demand_samples_per_second": made / max(seconds - rank.batches.waited, 1e-9) * ranks,
        "began": time.time() - seconds,
    }


def _export(rank: _Rank, facts: dict[str, Any]) -> None:
    """The trained model, its weights averaged if `train.average` says so, adapters merged, as a model directory; rank 0
    writes it."""
    job, engine = rank.job, rank.engine
    engine.take_average()
    target = job.run / FINAL
    free = rank.checkpoints.free
    with checkpoint.written_by_all(target, engine.model_bytes(), free) as folder, engine.whole_model() as model:
        if rank.first:
            tuning.merge(model)
            model.save_pretrained(folder)
            rank.processor.save_pretrained(folder)
            write_json(folder / FACTS_FILE, facts)
    if job.uri and rank.first:
        StartLog(job).put()
        storage.store(target, f"{job.uri}/{FINAL}")
        storage.store(target / FACTS_FILE, f"{job.uri}/{FINAL}.done")
    dist.barrier()
