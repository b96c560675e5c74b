"""One optimizer step of all ranks: the loss of the whole global batch, however it is shared out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from ifas.model.loss import INTERPRETATION, JUDGMENT, LOSSES
from ifas.model.tuning import PARTS
from ifas.training.batches import MicroBatch
from ifas.training.engine import Engine
from ifas.training.faults import Watch
from ifas.training.job import Job


@dataclass(frozen=True)
class StepLosses:
    """Means over the global batch, in nats per token, the same on all ranks.

    Attributes:
        loss: what was trained on, weights included.
        judgment, interpretation: of the two parts, all samples alike.
        by_species: spoof type -> means of the two parts, of the types that were in the batch.
        skipped: samples whose loss is not finite, or all of the step where a gradient is not: the step left the weights
            as they were.
        leaving: a machine is about to be taken away.
    """

    loss: float
    judgment: float
    interpretation: float
    by_species: dict[str, tuple[float, float]]
    skipped: tuple[str, ...]
    leaving: bool

    @property
    def shown(self) -> dict[str, Any]:
        """Values shown beside the progress bar."""
        return {"judgment": round(self.judgment, 4), "interpretation": round(self.interpretation, 4)}


def take(
    engine: Engine, step: int, micro_batches: list[MicroBatch], job: Job, watch: Watch, *, leaving: bool = False
) -> StepLosses:
    """Takes one optimizer step. Every rank calls it with its own micro-batches.

    Two small sums over the ranks: before, of the counts of tokens that the means are divided by; after, of the losses.

    Raises:
        TrainingError: no memory, or a loss that is not finite and may not be skipped.
    """
    config, device = job.train, engine.device
    counts_2 = torch.stack([batch.weights_B @ _counts(batch) for batch in micro_batches]).sum(dim=0)
    before_3 = torch.cat([counts_2, torch.tensor([float(leaving)])]).to(device)
    dist.all_reduce(before_3)
    counts_2 = before_3[:2]
    engine.begin(step)
    weighted_2 = torch.zeros(2, device=device)
    by_species_S4 = torch.zeros(len(job.species), 4, device=device)
    per_sample = []
    for number, batch in enumerate(micro_batches):
        with watch.memory(batch):
            sums = engine.forward(batch.inputs)
            share_2 = sums.weighted(batch.weights_B.to(device))
            watch.part = "backward pass"
            engine.backward(LOSSES[config.loss](share_2, counts_2, config.alpha), last=number == len(micro_batches) - 1)
        weighted_2 += share_2.detach()
        per_sample.append(sums.sums_B2.detach())
        by_species_S4.index_add_(
            0, batch.species_B.to(device), torch.cat([sums.sums_B2.detach(), sums.counts_B2], dim=1).float()
        )
    after = torch.cat([weighted_2, by_species_S4.flatten(), engine.gradient_sizes()])
    dist.all_reduce(after)
    after, sizes_P = after[: -len(PARTS)], after[-len(PARTS) :]
    skipped: tuple[str, ...] = ()
    if not bool(torch.isfinite(after).all()):
        skipped = watch.not_finite(step, micro_batches, per_sample)
    elif not bool(torch.isfinite(sizes_P).all()):
        skipped = watch.gradient_not_finite(step, micro_batches, sizes_P)
    with watch.memory(None):
        engine.step(skip=bool(skipped))
    weighted_2, by_species_S4 = after[:2], after[2:].view(-1, 4)
    totals_4 = by_species_S4.sum(dim=0)
    judgment, interpretation = _means(totals_4)
    return StepLosses(
        loss=float(LOSSES[config.loss](weighted_2, counts_2, config.alpha)),
        judgment=judgment,
        interpretation=interpretation,
        by_species={
            name: _means(row_4)
            for name, row_4 in zip(job.species, by_species_S4, strict=True)
            if float(row_4[2:].sum())
        },
        skipped=skipped,
        leaving=bool(before_3[2] > 0),
    )


def _counts(batch: MicroBatch) -> Tensor:
    """Weighted tokens (B, 2) of the judgment and of the interpretation."""
    parts_BT, weights_BT = batch.inputs["parts"], batch.inputs["weights"]
    return torch.stack([(weights_BT * (parts_BT == part)).sum(dim=1) for part in (JUDGMENT, INTERPRETATION)], dim=1)


def _means(sums_and_counts_4: Tensor) -> tuple[float, float]:
    means_2 = sums_and_counts_4[:2] / sums_and_counts_4[2:].clamp(min=1)
    return float(means_2[0]), float(means_2[1])
