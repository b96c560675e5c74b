"""Bytes that one worker holds in training, per ZeRO stage, as DeepSpeed keeps them under AdamW.

N parameters, M of them trained, P workers, w bytes per number in the training precision (4 in fp32, else 2):

| stage | weights | gradients | optimizer: float32 copy and two moments |
|---|---|---|---|
| 0 | w N | w M | 8 M, with the copy 12 M in bf16 |
| 1 | w N | w M | 12 M / P |
| 2 | w N | w M / P | 12 M / P |
| 3 | w N / P | w M / P | 12 M / P |

Stages 1 to 3 keep the float32 copy in fp32, too. `train.average` adds 4 M to the optimizer, 4 M / P from stage 1 on.
Buckets: gradients on their way between workers are collected in buffers of 5e8 numbers (DeepSpeed's default): one in
stage 3, one in stage 2, and with GPUs, where communication overlaps with the backward pass, two in stages 1 and 2. In
stage 3, up to 1e9 whole weights are gathered at a time (DeepSpeed's stage3_max_live_parameters). Activations: see
`dry_run`. While the optimizer steps, activations are gone; it holds the gradients in float32 and one more temporary of
the same size instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from ifas.core.config import TrainConfig

BUCKET = 500_000_000
GATHERED = 1_000_000_000


@dataclass(frozen=True)
class Memory:
    """Bytes of one worker; `step` is what the optimizer's step takes while activations and buckets are gone."""

    weights: int
    gradients: int
    optimizer: int
    buckets: int
    activations: int
    step: int

    @property
    def lasting(self) -> int:
        """Weights, gradients and optimizer states."""
        return self.weights + self.gradients + self.optimizer

    @property
    def peak(self) -> int:
        """Most bytes held at once."""
        return self.lasting + max(self.buckets + self.activations, self.step)


def training_memory(parameters: int, trainable: int, activations: int, train: TrainConfig, stage: int) -> Memory:
    """Memory of one worker.

    Args:
        parameters, trainable: N and M.
        activations: bytes, of one micro-batch.
        train: `precision`, `workers`, `gpus_per_worker`, `average`.
        stage: of ZeRO, 0 to 3.
    """
    wide = 4 if train.precision == "fp32" else 2
    shares = train.workers
    own = trainable if stage == 0 else -(-trainable // shares)
    copy = 0 if stage == 0 and wide == 4 else 4
    average = 4 if train.average else 0
    overlaps = train.gpus_per_worker > 0
    # On a CPU, memory is taken only for the part of a buffer that was written, which is at most the gradients.
    bucket = BUCKET if overlaps else min(BUCKET, trainable)
    buckets = {0: 0, 1: 2 if overlaps else 0, 2: 2 if overlaps else 1, 3: 1}[stage] * bucket * wide
    if stage == 3 and shares > 1:
        buckets += wide * min(parameters, GATHERED)
    return Memory(
        weights=wide * (-(-parameters // shares) if stage == 3 else parameters),
        gradients=wide * (own if stage >= 2 else trainable),
        optimizer=(8 + copy + average) * own,
        buckets=buckets,
        activations=activations,
        step=(8 if wide == 2 else 4) * own,
    )
