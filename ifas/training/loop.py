"""The training loop of one rank. It knows ranks and checkpoints, but not who started it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from ifas.core.config import TrainConfig
from ifas.core.errors import TrainingError
from ifas.core.files import write_json
from ifas.core.progress import Progress, emit
from ifas.model import tuning
from ifas.model.build import build
from ifas.model.loss import INTERPRETATION, JUDGMENT, LOSSES
from ifas.training import checkpoint
from ifas.training.batches import Batch, Batches
from ifas.training.curve import CURVE_FILE, Curve
from ifas.training.engine import Engine, join
from ifas.training.job import FACTS_FILE, FINAL, STARTS_FILE, Job

#: Tells the launcher of a new checkpoint: metrics, folder. Every rank calls it.
Report = Callable[[dict[str, float], Path], None]


def run(
    job: Job, report: Report, resume: Path | None = None, free: checkpoint.FreeBytes = checkpoint.free_bytes
) -> None:
    """Trains, and leaves the model in `job.run / FINAL`. Called by every rank, in its own process.

    The environment holds RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.

    Args:
        job: the same on all ranks.
        report: called with each checkpoint.
        resume: checkpoint to go on from.
        free: bytes left on a disk.

    Raises:
        TrainingError: no disk space, or the loss is no longer finite.
        DataError: a picture can't be read.
        ConfigError: the model can't be built.
    """
    config = job.train
    join(config)
    rank, first = dist.get_rank(), dist.get_rank() == 0
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    model, processor = build(job.model, seed=config.seed)
    parameters = tuning.count(model)["total"]["parameters"]
    tuning.prepare(model, job.model, seed=config.seed)
    trainable = tuning.count(model)["total"]["trainable"]
    model.train()
    engine = Engine(model, tuning.parameter_groups(model, job.model, config.weight_decay), config)
    start = checkpoint.restore(engine, resume) if resume else 0

    curve = Curve(job.run / CURVE_FILE, start) if first else None
    progress = Progress("train", total=config.steps, unit="steps", done=start)
    if first:
        with (job.run / STARTS_FILE).open("a") as f:
            f.write(f"{start}\n")
        if start:
            emit("note", "train", text=f"goes on after step {start} of {config.steps}")
    began = time.monotonic()
    for step, micro_batches in enumerate(Batches(job, processor, rank).steps(start, config.steps), start):
        judgment, interpretation = _step(engine, step, micro_batches, config)
        done = step + 1
        if curve:
            curve.add(done, judgment, interpretation, config.alpha)
            left = (time.monotonic() - began) / (done - start) * (config.steps - done)
            progress.advance(judgment=round(judgment, 4), interpretation=round(interpretation, 4), eta=round(left, 1))
        if done % config.checkpoint_every == 0 and done < config.steps:
            folder = checkpoint.save(engine, job.run, done, free)
            report({"step": done, "judgment": judgment, "interpretation": interpretation}, folder)
    seconds = time.monotonic() - began
    facts = {
        "parameters": parameters,
        "trainable": trainable,
        "device": str(engine.device),
        "samples_per_second": (config.steps - start) * job.global_batch / seconds if config.steps > start else 0.0,
        "began": time.time() - seconds,
    }
    _export(engine, processor, job.run / FINAL, facts, free)


def _step(engine: Engine, step: int, micro_batches: list[Batch], config: TrainConfig) -> tuple[float, float]:
    """One optimizer step; returns the mean judgment and interpretation losses over the global batch."""
    counts_2 = sum(_counts(batch) for batch in micro_batches)
    assert isinstance(counts_2, Tensor)
    counts_2 = counts_2.to(engine.device)
    dist.all_reduce(counts_2)
    engine.begin(step)
    totals_2 = torch.zeros(2, device=engine.device)
    for batch in micro_batches:
        sums_2, _ = engine.forward(batch)
        totals_2 += sums_2.detach()
        engine.backward(LOSSES[config.loss](sums_2, counts_2, config.alpha))
    dist.all_reduce(totals_2)
    judgment, interpretation = (totals_2 / counts_2.clamp(min=1)).tolist()
    if not bool(torch.isfinite(totals_2).all()):
        raise TrainingError(
            f"the loss is not finite at step {step + 1} (judgment {judgment}, interpretation {interpretation})",
            "lower the learning rates (model.*.lr), or train in fp32",
        )
    return judgment, interpretation


def _counts(batch: Batch) -> Tensor:
    """Tokens (2,) of the judgment and of the interpretation."""
    parts = batch["parts"]
    return torch.stack([(parts == JUDGMENT).sum(), (parts == INTERPRETATION).sum()]).float()


def _export(engine: Engine, processor: Any, target: Path, facts: dict[str, Any], free: checkpoint.FreeBytes) -> None:
    """The trained model, LoRA merged, as a model directory; rank 0 writes it."""
    with checkpoint.written_by_all(target, engine.model_bytes(), free) as folder, engine.whole_model() as model:
        if dist.get_rank() == 0:
            tuning.merge(model)
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
            write_json(folder / FACTS_FILE, facts)
