"""Errors of a training step: they name the samples, the part of the model, and what to change."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from ifas.core.errors import TrainingError
from ifas.core.progress import emit
from ifas.model.tuning import PARTS
from ifas.training.batches import MicroBatch
from ifas.training.engine import Engine
from ifas.training.job import Job

#: Texts of torch's error when the CPU has no memory left; a GPU has an exception class of its own.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "std::bad_alloc")
#: Samples that an error names; the rest is counted.
NAMED = 8


class Watch:
    """Watches the steps of one rank.

    Args:
        engine, job: of the training.
        skipped: batches left out before this start.
    """

    def __init__(self, engine: Engine, job: Job, skipped: int = 0) -> None:
        self.engine = engine
        self.job = job
        self.skipped = skipped
        self.part = ""
        self._hooks = []
        for name in PARTS:
            if name == "vision" and job.train.features:
                continue  # it runs in another thread, and not as a part of a step
            module = getattr(engine.model, name)
            module = module.get_decoder() if name == "language" else module
            self._hooks.append(module.register_forward_pre_hook(self._enters(name)))
        self._hooks.append(engine.model.language.get_decoder().register_forward_hook(self._enters("loss")))

    def close(self) -> None:
        """Removes the hooks from the model."""
        for hook in self._hooks:
            hook.remove()

    def _enters(self, name: str) -> Any:
        def hook(*_: Any) -> None:
            self.part = name

        return hook

    @contextmanager
    def memory(self, batch: MicroBatch | None) -> Iterator[None]:
        """Turns 'out of memory' into an error that names the batch. Without a batch, the optimizer ran out of memory.

        Raises:
            TrainingError: no memory.
        """
        self.part = "" if batch else "optimizer"
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not any(
                t in str(error) for t in _NO_MEMORY
            ):
                raise
            raise self._no_memory(batch, error) from error

    def _no_memory(self, batch: MicroBatch | None, error: BaseException) -> TrainingError:
        config = self.job.train
        tips = []
        if config.batch > 1:
            tips.append(
                f"train.batch={config.batch // 2} train.accumulate={config.accumulate * 2} (the run then goes on)"
            )
        if config.zero_stage < 3:
            tips.append(f"train.zero_stage={config.zero_stage + 1}")
        if config.zero_stage and config.offload == "none":
            tips.append("train.offload=optimizer")
        if config.precision == "fp32":
            tips.append("train.precision=bf16")
        tips.append("more workers")
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else "no memory"
        if batch is None:
            where = "in the optimizer's step"
        else:
            tokens = batch.inputs["input_ids"].shape[1]
            count = len(batch.sample_ids)
            where = f"in {_called(self.part)}, with {count} samples of {tokens} tokens ({_ids(batch.sample_ids)})"
        return TrainingError(f"out of memory {where}: {first}", f"try one of: {'; '.join(tips)}")

    def not_finite(self, step: int, micro_batches: list[MicroBatch], per_sample: list[Tensor]) -> tuple[str, ...]:
        """The samples whose loss is not finite, of all ranks, when their batch may be left out. All ranks call it.

        Raises:
            TrainingError: `train.skip_batches` are left out already, or the weights themselves are not finite.
        """
        mine = [
            sample
            for batch, sums_B2 in zip(micro_batches, per_sample, strict=True)
            for sample, ok in zip(batch.sample_ids, torch.isfinite(sums_B2).all(dim=1).tolist(), strict=True)
            if not ok
        ]
        worst = next((b for b, s in zip(micro_batches, per_sample, strict=True) if not torch.isfinite(s).all()), None)
        weights = self._broken_weights()
        part = "" if weights else self._first_not_finite(worst or micro_batches[0])
        said: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(said, (mine, weights, part if worst else ""))
        samples = tuple(sorted({sample for ids, _, _ in said for sample in ids}))
        weights = next((w for _, w, _ in said if w), "")
        part = next((p for _, _, p in said if p), "loss")
        what = f"the loss is not finite at step {step + 1}: samples {_ids(samples)}"
        everything = sum(len(ids) for ids, _, _ in said) == self.job.global_batch > 1
        if weights or everything:
            # No sample caused this: leaving the batch out would only hide it.
            why = f"the weights of {_called(weights)} are not finite" if weights else "that is every sample of the step"
            raise TrainingError(
                f"{what}; {why}: an earlier step destroyed the weights; it went wrong in {_called(weights or part)}",
                "lower the learning rates (model.*.lr) or train.clip, or train in fp32; earlier checkpoints are whole",
            )
        self._leave_out(f"{what}; it began in {_called(part)}")
        return samples

    def gradient_not_finite(self, step: int, micro_batches: list[MicroBatch], sizes_P: Tensor) -> tuple[str, ...]:
        """All samples of the step, of all ranks, when their batch may be left out: each of their losses is finite, so
        nothing tells which of them it was. All ranks call it.

        Args:
            sizes_P: `Engine.gradient_sizes`, summed over the ranks.

        Raises:
            TrainingError: `train.skip_batches` are left out already.
        """
        said: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(said, [sample for batch in micro_batches for sample in batch.sample_ids])
        samples = tuple(sorted({sample for ids in said for sample in ids}))
        # The backward pass runs from the last part to the first, and carries on what it meets.
        part = next(
            name for name, size in reversed([*zip(PARTS, sizes_P.tolist(), strict=True)]) if not math.isfinite(size)
        )
        self._leave_out(
            f"the gradient of {_called(part)} is not finite at step {step + 1}, though each loss is: "
            f"samples {_ids(samples)}"
        )
        return samples

    def _leave_out(self, what: str) -> None:
        """Counts a batch that is left out, and says so."""
        if self.skipped >= self.job.train.skip_batches:
            raise TrainingError(
                what + (f"; {self.skipped} batches were left out before" if self.skipped else ""),
                "look at these samples; lower the learning rates (model.*.lr) or train in fp32; "
                "train.skip_batches=N leaves up to N such batches out",
            )
        self.skipped += 1
        if dist.get_rank() == 0:
            emit("note", "train", text=f"{what}: batch left out ({self.skipped} so far)")

    def _broken_weights(self) -> str:
        for name in PARTS:
            for parameter in getattr(self.engine.model, name).parameters():
                if parameter.numel() and not math.isfinite(float(parameter.detach().float().abs().max())):
                    return name
        return ""

    @torch.no_grad()
    def _first_not_finite(self, batch: MicroBatch) -> str:
        """The part of the model whose output is the first that is not finite; under ZeRO-3 all ranks must call it."""
        found: list[str] = []

        def check(name: str) -> Any:
            def hook(_module: Any, _inputs: Any, output: Any) -> None:
                if not all(bool(torch.isfinite(t).all()) for t in _tensors(output)):
                    found.append(name)

            return hook

        model = self.engine.model
        modules = {"vision": model.vision, "connector": model.connector, "language": model.language.get_decoder()}
        hooks = [module.register_forward_hook(check(name)) for name, module in modules.items()]
        try:
            # Compiled blocks would be compiled once more, for a pass without gradients.
            with torch.compiler.set_stance("force_eager"):
                model(**{name: tensor.to(self.engine.device) for name, tensor in batch.inputs.items()})
        finally:
            for hook in hooks:
                hook.remove()
        return found[0] if found else "loss"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
    elif hasattr(value, "last_hidden_state"):
        yield value.last_hidden_state


def _called(part: str) -> str:
    known = {"vision": "the vision tower", "connector": "the connector", "language": "the language model"}
    return known.get(part, f"the {part or 'batch'}")


def _ids(samples: tuple[str, ...]) -> str:
    more = f" and {len(samples) - NAMED} more" if len(samples) > NAMED else ""
    return ", ".join(samples[:NAMED]) + more
