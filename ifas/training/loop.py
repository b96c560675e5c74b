"""The training loop of one rank. It knows ranks and checkpoints, but not who started it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import distributed as dist

from ifas.core import storage
from ifas.core.files import remove, write_json
from ifas.core.progress import Progress, emit
from ifas.model import tuning
from ifas.model.build import build, load
from ifas.model.fused_norm import fuse
from ifas.model.sizing import device_memory, size, will_not_fit
from ifas.training import checkpoint
from ifas.training.batches import Batches
from ifas.training.checkpoint import Checkpoints
from ifas.training.curve import CURVE_FILE, Curve
from ifas.training.engine import Engine, join
from ifas.training.faults import Watch
from ifas.training.job import FACTS_FILE, FINAL, Job
from ifas.training.startup import StartLog, StartupTimer
from ifas.training.step import take
from ifas.training.tracking import sink

#: Tells the launcher how far training is. Every rank calls it, after each checkpoint.
Report = Callable[[dict[str, float]], None]
#: Whether this rank's machine is about to be taken away.
Notice = Callable[[], bool]


def run(
    job: Job,
    report: Report = lambda _: None,
    notice: Notice = lambda: False,
    clock: StartupTimer | None = None,
    free: checkpoint.FreeBytes = checkpoint.free_bytes,
) -> Literal["finished", "preempted"]:
    """Trains from the newest checkpoint, or from the start, and leaves the model in `FINAL`, of `job.run` and of
    `job.uri`. Called by every rank, in its own process.

    The environment holds RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. There may be more or fewer ranks
    than wrote the checkpoint: the global batch, and so the training, stays the same.

    Args:
        job: the same on all ranks.
        report: called after each checkpoint.
        notice: asked once a step. Where it is true on any rank, all make a checkpoint and return `preempted`.
        clock: of this start, where it began before this call.
        free: bytes left on a disk.

    Raises:
        TrainingError: no disk space, no memory, or the loss is no longer finite.
        DataError: a picture can't be read, or the store of checkpoints can't be reached.
        ConfigError: the model can't be built.
    """
    clock = clock or StartupTimer()
    config = job.train
    clock.mark("imports")
    join(config)
    rank, first = dist.get_rank(), dist.get_rank() == 0
    if first and config.gpus_per_worker:
        _warn(job)
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    accumulate = job.accumulate(dist.get_world_size())
    clock.mark("process group")
    model, processor = load(job.base, dtype=torch.float32) if job.base else build(job.model, seed=config.seed)
    parameters = tuning.count(model)["total"]["parameters"]
    tuning.prepare(model, job.model, seed=config.seed)
    trainable = tuning.count(model)["total"]["trainable"]
    if config.gpus_per_worker:
        fuse(model.language)
    model.train()
    clock.mark("model")
    checkpoints = Checkpoints(job.run, job.uri, config.keep_checkpoints, free)
    found = checkpoints.newest()
    groups = tuning.parameter_groups(model, job.model, config.weight_decay)
    engine = Engine(model, groups, config, accumulate, universal=bool(found and found.universal))
    if found:
        checkpoints.restore(engine, found)
    start = found.step if found else 0
    clock.mark("DeepSpeed")

    starts = StartLog(job)
    if first:
        starts.begin(start, dist.get_world_size())
        if start:
            emit("note", "train", text=f"goes on after step {start} of {config.steps}")
    curve = Curve(job.run / CURVE_FILE, start) if first else None
    tracking = sink(job) if first else None
    progress = Progress("train", total=config.steps, unit="steps", done=start)
    watch = Watch(engine, job, found.skipped if found else 0)
    batches = Batches(job, processor, rank, dist.get_world_size())
    began = time.monotonic()
    ended: Literal["finished", "preempted"] = "finished"
    for step, micro_batches in enumerate(batches.steps(start, config.steps), start):
        if step == start:
            clock.mark("first batch")
        losses = take(engine, step, micro_batches, job, watch, leaving=notice())
        done = step + 1
        if curve:
            curve.add(done, losses)
            if tracking:
                tracking.add(done, losses)
            left = (time.monotonic() - began) / (done - start) * (config.steps - done)
            progress.advance(**losses.shown, eta=round(left, 1))
        if step == start:
            clock.mark("first step")
            if first:
                emit("note", "train", text=clock.text())
        # Saved and read back after the very first step: what would fail hours later fails now.
        trial = done == 1 < config.steps
        if done < config.steps and (trial or done % config.checkpoint_every == 0 or losses.leaving):
            checkpoints.save(engine, done, skipped=watch.skipped)
            if first:
                starts.put()
            if trial and (written := checkpoints.newest()):
                _check_export(engine, job, processor, free)
                checkpoints.restore(engine, written)
            report({"step": done, "judgment": losses.judgment, "interpretation": losses.interpretation})
            if losses.leaving:
                ended = "preempted"
                break
    seconds = time.monotonic() - began
    watch.close()
    if tracking:
        tracking.close()
    if ended == "preempted":
        return ended
    steps = max(1, config.steps - start)
    made = steps * job.global_batch / dist.get_world_size()
    facts = {
        "parameters": parameters,
        "trainable": trainable,
        "device": str(engine.device),
        "samples_per_second": steps * job.global_batch / seconds if config.steps > start else 0.0,
        # Of all ranks, each of which makes its own batches: what they could, and what the model took while it had one.
        "loader_samples_per_second": made / max(batches.seconds, 1e-9) * dist.get_world_size(),
        "demand_samples_per_second": made / max(seconds - batches.waited, 1e-9) * dist.get_world_size(),
        "began": time.time() - seconds,
        "start_up": clock.seconds,
    }
    _export(engine, processor, job, facts, free)
    return ended


def _warn(job: Job) -> None:
    """Says before anything is loaded that this run will not fit the GPU, and what to change. It is a prediction."""
    sizes = size(job.model, job.train)
    if warning := will_not_fit(job.model, job.train, device_memory(job.train), sizes):
        emit("note", "train", text=str(warning))


def _check_export(engine: Engine, job: Job, processor: Any, free: checkpoint.FreeBytes) -> None:
    """Fails now where the final model could not be written at the end."""
    if dist.get_rank() == 0:
        checkpoint.require_space(job.run, engine.model_bytes() + engine.checkpoint_bytes(), free)
        probe = job.run / ".probe.part"
        processor.save_pretrained(probe)
        if job.uri:
            storage.store(probe, f"{job.uri}/.probe")
            storage.delete(f"{job.uri}/.probe")
        remove(probe)
    dist.barrier()


def _export(engine: Engine, processor: Any, job: Job, facts: dict[str, Any], free: checkpoint.FreeBytes) -> None:
    """The trained model, adapters merged, as a model directory; rank 0 writes it."""
    target = job.run / FINAL
    needed = engine.model_bytes()
    with checkpoint.written_by_all(target, needed, free) as folder, engine.whole_model() as model:
        if dist.get_rank() == 0:
            tuning.merge(model)
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
            write_json(folder / FACTS_FILE, facts)
    if job.uri and dist.get_rank() == 0:
        StartLog(job).put()
        storage.store(target, f"{job.uri}/{FINAL}")
        storage.store(target / FACTS_FILE, f"{job.uri}/{FINAL}.done")
    dist.barrier()
