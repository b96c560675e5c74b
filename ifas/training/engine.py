"""The door to DeepSpeed: one engine around the model, ZeRO stage 0 to 3, bf16 or fp32."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from ifas.core.config import TrainConfig
from ifas.training.schedule import lr_factor

TAG = "state"


class Engine:
    """A model under training.

    Args:
        model: with `requires_grad` set.
        groups: parameter groups with their own `lr`, see `tuning.parameter_groups`.
        config: steps, precision, ZeRO stage, accumulation, clipping.
    """

    def __init__(self, model: Any, groups: list[dict[str, Any]], config: TrainConfig) -> None:
        deepspeed = _deepspeed()
        self.config = config
        self.peaks = [group["lr"] for group in groups]
        # torch's optimizer: DeepSpeed's own ones are compiled on first use, which takes minutes and a compiler.
        optimizer = torch.optim.AdamW(groups)
        self.deep, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            model_parameters=[p for group in groups for p in group["params"]],
            config=settings(config),
        )
        self.model = model

    @property
    def device(self) -> torch.device:
        """Where batches go."""
        return torch.device(self.deep.device)

    def begin(self, step: int) -> None:
        """Sets the learning rates of a step, and the random state: of dropout, if there is any."""
        factor = lr_factor(step, steps=self.config.steps, warmup=self.config.warmup)
        for group, peak in zip(self.deep.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        rank = dist.get_rank()
        torch.manual_seed(((self.config.seed * 1_000_003 + step) * 4099 + rank) % 2**63)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sums and counts (2,) of a micro-batch, see `loss.LossSums`."""
        out = self.deep(**{name: tensor.to(self.device) for name, tensor in batch.items()})
        return out.sums, out.counts

    def backward(self, loss: Tensor) -> None:
        """Accumulates the gradients of this share of the global loss, and steps after the last micro-batch.

        DeepSpeed takes the mean over micro-batches and ranks, and the shares are to be added up: hence the factor.
        """
        self.deep.backward(loss * (dist.get_world_size() * self.config.accumulate))
        self.deep.step()

    def save(self, folder: Path) -> None:
        """Writes trained weights and optimizer state; every rank calls it and writes its part."""
        self.deep.save_checkpoint(str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=True)

    def restore(self, folder: Path) -> None:
        """Reads what `save` wrote; every rank calls it."""
        self.deep.load_checkpoint(str(folder), tag=TAG, load_module_strict=False)

    def checkpoint_bytes(self) -> int:
        """What `save` will write over all ranks, in bytes, a little over-estimated."""
        trained = sum(_full_size(p) for p in self.model.parameters() if p.requires_grad)
        # Weights in the training precision, a float32 copy of them, and the optimizer's two moments.
        weights = 2 if self.config.precision == "bf16" else 4
        return int(1.05 * trained * (weights + 4 + 8)) + 2**20

    def model_bytes(self) -> int:
        """What the final model will take on disk, in bytes, a little over-estimated."""
        weights = 2 if self.config.precision == "bf16" else 4
        return int(1.02 * weights * sum(_full_size(p) for p in self.model.parameters())) + 8 * 2**20

    @contextmanager
    def whole_model(self) -> Iterator[Any]:
        """The model with all its weights in place; every rank enters and leaves together (ZeRO-3 gathers)."""
        if self.config.zero_stage < 3:
            yield self.model
            return
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(self.model.parameters()), modifier_rank=None):
            yield self.model


def settings(config: TrainConfig) -> dict[str, Any]:
    """The DeepSpeed configuration of a training configuration."""
    return {
        "train_micro_batch_size_per_gpu": config.batch,
        "gradient_accumulation_steps": config.accumulate,
        "bf16": {"enabled": config.precision == "bf16"},
        "zero_optimization": {"stage": config.zero_stage, "overlap_comm": config.gpus_per_worker > 0},
        "gradient_clipping": config.clip,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }


def backend(config: TrainConfig) -> str:
    """Collective library: nccl between GPUs, gloo between CPUs."""
    return "nccl" if config.gpus_per_worker else "gloo"


def join(config: TrainConfig) -> None:
    """Joins the process group; RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are in the environment."""
    if not config.gpus_per_worker:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    _deepspeed().init_distributed(dist_backend=backend(config), verbose=False)


def _deepspeed() -> Any:
    # FutureWarning: of torch, about collectives that DeepSpeed uses.
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # Only used for inference; on a CPU, DeepSpeed would compile it when the process group is made: a minute, and g++.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _full_size(parameter: Tensor) -> int:
    """Elements of a parameter, its ZeRO-3 shards on other ranks included."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
