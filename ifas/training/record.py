"""The record of a finished training."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

TRAINING_FILE = "training.json"


class TrainingRecord(BaseModel):
    """Facts of one training; saved as `training.json` in the model directory."""

    model_config = ConfigDict(extra="forbid")

    run: str = Field(description="name of the run, with the fingerprint of its configuration and rows")
    steps: int
    samples: int = Field(description="rows trained on")
    batch: int = Field(description="samples per step, over all workers and micro-batches")
    seconds: float = Field(description="this call, from start to model directory")
    start_seconds: float = Field(description="of `seconds`: until the first step began")
    start_up: dict[str, float] = Field(description="seconds of each stage of the last start until its first step")
    samples_per_second: float = Field(description="over the steps of the last start, all workers together")
    loader_samples_per_second: float = Field(description="what the loaders can read, decode and resize")
    demand_samples_per_second: float = Field(description="rate of the model alone, without waiting for the loaders")
    starts: list[int] = Field(description="step at which each start began; the first is 0")
    resumed_from: int | None = Field(description="step the last start resumed from; null when there was only one")
    restarts: int = Field(description="starts after the first")
    lost_steps: int = Field(description="steps that were repeated after restarts")
    skipped_batches: int = Field(description="batches left out since their loss was not finite")
    loss: float = Field(description="of the last step")
    judgment: float = Field(description="of the last step, nats per token")
    interpretation: float = Field(description="of the last step, nats per token")
    species: dict[str, tuple[float, float]] = Field(
        description="judgment and interpretation of the last step by spoof type, nats per token"
    )
    left_plateau: int | None = Field(
        default=None,
        description="step from which on the judgment loss, a mean of 8 steps, stays below the entropy of the class "
        "shares, which a model that ignores its images reaches; null: it never does, or some rows are no judgments",
    )
    average: float = Field(default=0.0, description="decay of the average of the weights that was saved; 0: none")
    parameters: int
    trainable: int
    alpha: float
    precision: str
    zero_stage: int
    workers: int
    threads: int = Field(default=0, description="of rank 0 on the CPUs of its machine; 0: not recorded")
    device: str
    versions: dict[str, str]
