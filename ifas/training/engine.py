"""DeepSpeed: one engine around the model, ZeRO stage 0 to 3, fp32, bf16 or fp16."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional

from ifas.core.config import TrainConfig
from ifas.core.environment import hidden, setting
from ifas.core.errors import ConfigError
from ifas.model.loss import LossSums
from ifas.model.tuning import PARTS
from ifas.training.optimizer import AdamW
from ifas.training.schedule import lr_factor

TAG = "state"
#: In a checkpoint of a run under ZeRO: the average, whole, for another number of ranks. DeepSpeed's universal form has
#: the weights and Adam's moments only.
AVERAGE_FILE = "average.safetensors"
#: In a checkpoint: the moments of the levels (`connector.LevelScale`), which that form lacks as well.
SCALE_FILE = "level_scale.safetensors"
#: How long ranks wait for each other before the first collective, as torch does for gloo.
MEETING = timedelta(minutes=30)


class Engine:
    """A model under training.

    Args:
        model: with `requires_grad` set.
        groups: parameter groups with their own `lr`, see `tuning.parameter_groups`.
        config: steps, precision, ZeRO stage, clipping.
        accumulate: micro-batches per step.
        universal: the checkpoint that will be restored is a universal one.

    Raises:
        ConfigError: the device can't compute in this precision.
    """

    def __init__(
        self,
        model: Any,
        groups: list[dict[str, Any]],
        config: TrainConfig,
        accumulate: int = 1,
        *,
        universal: bool = False,
    ) -> None:
        deepspeed = _deepspeed()
        _require_precision(config)
        self.config = config
        self.accumulate = accumulate
        self.peaks = [group["lr"] for group in groups]
        self.decays = [group["weight_decay"] for group in groups]
        self._trained = [p for group in groups for p in group["params"]]  # DeepSpeed puts others into the groups
        self._adamw = AdamW(groups, config.average)
        self.deep, *_ = deepspeed.initialize(
            model=model,
            optimizer=self._adamw,
            model_parameters=[p for group in groups for p in group["params"]],
            config=settings(config, accumulate, universal=universal),
        )
        if config.zero_stage == 3:
            # ZeRO-3 gathers weights when their module is called, but the loss reads the head's weight directly.
            deepspeed.zero.register_external_parameter(model, model.language.get_output_embeddings().weight)
        self.model = model
        self._norms: dict[str, list[Tensor]] = {part: [] for part in PARTS}
        if config.precision != "fp16":  # whose gradients overflow now and then: DeepSpeed lowers the scale of the loss
            for part, norms in self._norms.items():
                for parameter in getattr(model, part).parameters():
                    if parameter.requires_grad:
                        parameter.register_hook(partial(_add_norm, norms))

    @property
    def device(self) -> torch.device:
        """Device of the batches."""
        return torch.device(self.deep.device)

    def begin(self, step: int) -> None:
        """Sets the learning rates of a step, and its random state, which dropout uses."""
        config = self.config
        factor = lr_factor(step, steps=config.steps, warmup=config.warmup, kind=config.schedule)
        for group, peak in zip(self.deep.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        torch.manual_seed(((config.seed * 1_000_003 + step) * 4099 + dist.get_rank()) % 2**63)

    def forward(self, inputs: dict[str, Tensor]) -> LossSums:
        """Loss sums of a micro-batch."""
        out: LossSums = self.deep(**{name: tensor.to(self.device) for name, tensor in inputs.items()})
        return out

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulates the gradients of this share of the global loss.

        DeepSpeed takes the mean over micro-batches and ranks, but the shares must be summed, so they are scaled first.

        Args:
            last: of the step; `step` then follows.
        """
        self.deep.backward(loss * (dist.get_world_size() * self.accumulate))
        if not last:
            self.deep.step()  # counts the micro-batch

    def gradient_sizes(self) -> Tensor:
        """Norms of this rank's gradients since the last call, added up for each of `PARTS`: (P,), on the device.

        One number that is not finite makes its part's sum so. In fp16 they are 0.
        """
        sums = [torch.stack(n).sum() if n else torch.zeros((), device=self.device) for n in self._norms.values()]
        for norms in self._norms.values():
            norms.clear()
        return torch.stack(sums)

    def step(self, *, skip: bool = False) -> None:
        """Updates the weights, or throws the gradients away."""
        self._adamw.skip = skip
        self.deep.step()
        self._adamw.skip = False

    def save(self, folder: Path) -> None:
        """Writes trained weights and optimizer state; every rank calls it and writes its part."""
        # DeepSpeed makes the folder on rank 0 only, but ranks may have disks of their own.
        (folder / TAG).mkdir(parents=True, exist_ok=True)
        self.deep.save_checkpoint(str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=True)
        if dist.get_rank() == 0:
            save_file(self.model.connector.scale.state_dict(), folder / SCALE_FILE)
        if self._splits_average:
            self._save_average(folder / AVERAGE_FILE)

    def restore(self, folder: Path, tag: str = TAG) -> None:
        """Reads what `save` wrote, or the form of it called `tag`; every rank calls it."""
        self.deep.load_checkpoint(str(folder), tag=tag, load_module_strict=False)
        # From the universal form, DeepSpeed's stage 3 gives every group the settings of the first one, and all
        # parameters one and the same counter of steps, which each of them then counts up.
        for group, decay in zip(self.deep.optimizer.param_groups, self.decays, strict=True):
            group["weight_decay"] = decay
        for state in self._adamw.state.values():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].clone()
        if tag == TAG:
            return
        self.model.connector.scale.load_state_dict(load_file(folder / SCALE_FILE))
        if self._splits_average:
            self._load_average(folder / AVERAGE_FILE)

    def take_average(self) -> None:
        """Puts the average of the weights, if there is one, into the model, for good; every rank calls it."""
        if not self.config.average:
            return
        self._adamw.exchange()
        for parameter, whole in self._whole_masters():
            with self._gathered([parameter], 0), torch.no_grad():
                parameter.copy_(whole)

    @property
    def _splits_average(self) -> bool:
        return bool(self.config.average) and self.config.zero_stage > 0

    def _whole_masters(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each trained parameter with the whole of its float32 master copy; every rank goes through all of them."""
        if self.config.zero_stage == 0:
            yield from zip(
                self._trained, [p for group in self._adamw.param_groups for p in group["params"]], strict=True
            )
            return
        from deepspeed.utils import safe_get_full_fp32_param

        for parameter in self._trained:
            yield parameter, safe_get_full_fp32_param(parameter)

    def _names(self) -> dict[Tensor, str]:
        return {parameter: name for name, parameter in self.model.named_parameters()}

    def _save_average(self, file: Path) -> None:
        names, first = self._names(), dist.get_rank() == 0
        tensors = {}
        with self._adamw.averaged():
            for parameter, whole in self._whole_masters():
                if first:
                    tensors[names[parameter]] = whole.detach().to("cpu", copy=True).contiguous()
        if first:
            save_file(tensors, file)

    def _load_average(self, file: Path) -> None:
        from safetensors import safe_open

        names = self._names()
        with safe_open(file, "pt") as tensors, self._adamw.becoming_averages():
            for parameter in self._trained:
                self._set_master(parameter, tensors.get_tensor(names[parameter]).to(self.device))

    def _set_master(self, parameter: Tensor, whole: Tensor) -> None:
        """Puts this rank's share of `whole` into the master copy of a parameter."""
        from deepspeed import utils

        if self.config.zero_stage < 3:
            utils.safe_set_full_fp32_param(parameter, whole)
            return
        # DeepSpeed's own way for whole tensors fails where the ranks don't share the elements evenly.
        share = utils.safe_get_local_fp32_param(parameter).numel()
        padded = functional.pad(whole.flatten(), (0, share * dist.get_world_size() - whole.numel()))
        utils.safe_set_local_fp32_param(parameter, padded.narrow(0, share * dist.get_rank(), share))

    def checkpoint_bytes(self) -> int:
        """What `save` will write over all ranks, in bytes, a little over-estimated."""
        trained = sum(_full_size(p) for p in self.model.parameters() if p.requires_grad)
        # Weights in the training precision, a float32 copy of them, the optimizer's two moments, and the average, which
        # is there twice under ZeRO: split and whole.
        average = 0 if not self.config.average else 8 if self._splits_average else 4
        return int(1.05 * trained * (self._weight_bytes() + 4 + 8 + average)) + 2**20

    def model_bytes(self) -> int:
        """What the final model will take on disk, in bytes, a little over-estimated."""
        return int(1.02 * self._weight_bytes() * sum(_full_size(p) for p in self.model.parameters())) + 8 * 2**20

    def _weight_bytes(self) -> int:
        return 4 if self.config.precision == "fp32" else 2

    @contextmanager
    def whole_model(self) -> Iterator[Any]:
        """The model with all its weights in place; every rank enters and leaves together (ZeRO-3 gathers)."""
        with self._gathered(list(self.model.parameters()), None):
            yield self.model

    def _gathered(self, parameters: list[Tensor], writer: int | None) -> AbstractContextManager[Any]:
        """Parameters are whole inside; what the rank `writer` makes of them stays. Every rank enters and leaves."""
        if self.config.zero_stage < 3:
            return nullcontext()
        import deepspeed

        gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(parameters, modifier_rank=writer)
        return gathered


def settings(config: TrainConfig, accumulate: int, *, universal: bool = False) -> dict[str, Any]:
    """The DeepSpeed configuration of a training configuration."""
    zero: dict[str, Any] = {"stage": config.zero_stage, "overlap_comm": config.gpus_per_worker > 0}
    if config.offload == "optimizer":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": config.gpus_per_worker > 0}
    return {
        "train_micro_batch_size_per_gpu": config.batch,
        "gradient_accumulation_steps": accumulate,
        # `Engine.gradient_sizes` finds what is not finite, while gradients are made: one kernel for each, not thirteen.
        "bf16": {"enabled": config.precision == "bf16", "check_grad_overflow": False},
        "fp16": {"enabled": config.precision == "fp16"},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "gradient_clipping": config.clip,
        "zero_allow_untested_optimizer": True,
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 10**9,
    }


def _add_norm(norms: list[Tensor], gradient: Tensor) -> None:
    norms.append(torch.linalg.vector_norm(gradient.detach(), dtype=torch.float32))


def join(config: TrainConfig) -> None:
    """Joins the process group; RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are in the environment."""
    backend, device = "gloo", None
    if config.gpus_per_worker:
        backend, device = "nccl", torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    deepspeed = _deepspeed()
    if not dist.is_initialized():
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        # With one rank there is no peer, and a device would make NCCL split each later group from this one.
        device = device if size > 1 else None
        dist.init_process_group(backend, store=_meeting_point(rank, size), rank=rank, world_size=size, device_id=device)
    deepspeed.init_distributed(dist_backend=backend, verbose=False)


def _meeting_point(rank: int, world_size: int) -> Any:
    """The store at which ranks meet. Rank 0 serves it at its own address only; torch's default is every interface."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family).detach() if rank == 0 else None
    return dist.TCPStore(  # type: ignore[attr-defined]
        host, port, world_size, is_master=rank == 0, master_listen_fd=listening, timeout=MEETING
    )


def _deepspeed() -> Any:
    # torch's FutureWarning is about collectives that DeepSpeed uses.
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # Its autotuner would import MLflow where it is installed, its Muon optimizer the compiler of torch. Neither is used
    # here, and both together are half of DeepSpeed's start.
    with hidden("mlflow"), setting("TORCHDYNAMO_DISABLE", "1"):
        import deepspeed
        import deepspeed.ops
        import deepspeed.runtime.zero.muon.muon_optimizer

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # Only used for inference; on a CPU, DeepSpeed would compile it when the process group is made: a minute, and g++.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _require_precision(config: TrainConfig) -> None:
    from deepspeed.accelerator import get_accelerator

    device = get_accelerator()
    known = {"fp16": device.is_fp16_supported, "bf16": device.is_bf16_supported}
    if config.precision in known and not known[config.precision]():
        raise ConfigError(
            f"train.precision={config.precision} does not work on this device ({device.device_name()})",
            "set train.precision to bf16, or to fp32, which works everywhere",
        )


def _full_size(parameter: Tensor) -> int:
    """Elements of a parameter, its ZeRO-3 shards on other ranks included."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
