"""Whether a run fits before it starts: parameters, memory per ZeRO stage and FLOPs of a configuration, without weights.

The model is built on the meta device and runs there (`dry_run`); `build.describe` counts its parameters. Samples are
taken as long as they can get: the whole prompt and an answer of `max_answer_tokens`. No gradient checkpointing, as
there is none in training.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ifas.core.config import ModelConfig, TrainConfig
from ifas.core.errors import ConfigError
from ifas.model import tuning
from ifas.model.build import describe, skeleton
from ifas.model.compiled import blocks
from ifas.model.dry_run import prefill_pass, training_pass
from ifas.model.fused_norm import fuse
from ifas.model.memory import Memory, training_memory

STAGES = (0, 1, 2, 3)

#: Memory of a GPU that tensors can't have: the driver's context and the libraries' workspaces. A usual value.
RESERVED = 2**30

#: Tokens of a chat template around the question, and characters per token of English; where no tokenizer is at hand.
TEMPLATE_TOKENS, CHARACTERS_PER_TOKEN = 16, 4


class Device(NamedTuple):
    """What one worker may fill: bytes, and where that number comes from."""

    bytes: int
    where: str


class Lengths(NamedTuple):
    """Tokens of a sample: its prompt with image tokens, and its longest answer. `exact`: told by the tokenizer."""

    prompt: int
    answer: int
    exact: bool


def lengths(config: ModelConfig, image_tokens: int) -> Lengths:
    """Tokens of a sample. The tokenizer is asked where it is on this machine, else the prompt is estimated."""
    from ifas.model.language import load_tokenizer
    from ifas.model.processor import IfasProcessor

    if not config.language.source or Path(config.language.source).is_dir():
        processor = IfasProcessor(
            load_tokenizer(config.language),
            image_size=config.vision.image_size,
            image_tokens=image_tokens,
            views=config.views,
            face_margin=config.face_margin,
            faces=config.faces,
            question=config.question,
            max_answer_tokens=config.max_answer_tokens,
            name_attack=config.name_attack,
        )
        verdict = max(len(processor.verdicts.yes), len(processor.verdicts.no))
        return Lengths(len(processor.prompt_ids), verdict + config.max_answer_tokens, True)
    text = TEMPLATE_TOKENS + len(config.question) // CHARACTERS_PER_TOKEN
    return Lengths(image_tokens + text, 1 + config.max_answer_tokens, False)


def dtype_of(train: TrainConfig) -> torch.dtype:
    """Precision of weights and activations."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[train.precision]


def size(model: ModelConfig, train: TrainConfig, *, judged_at_once: int = 16) -> dict[str, Any]:
    """All sizes of a configuration, in units, bytes and FLOPs.

    Args:
        model, train: of a run.
        judged_at_once: pictures in a batch of the judge.

    Returns:
        What `build.describe` returns, and `tokens` (prompt, answer, exact), `training` (forward and backward FLOPs
        per sample), `memory` (per ZeRO stage: `Memory`'s fields, `lasting`, `peak`), `judge` (FLOPs per picture,
        weights and peak bytes).

    Raises:
        ConfigError: a source is neither on this machine nor in `architectures`, or an adapter does not fit.
    """
    skeletal = skeleton(model).to(dtype_of(train))
    if train.gpus_per_worker:
        fuse(skeletal.language)
    length = lengths(model, skeletal.connector.tokens)
    weights = sum(p.numel() * p.element_size() for p in skeletal.parameters())
    judged = prefill_pass(skeletal, judged_at_once, length.prompt)
    sizes = describe(model, skeletal)
    tokens = length.prompt + length.answer
    compiled = [*blocks(skeletal.vision), *blocks(skeletal.language)] if train.compile else []
    trained = training_pass(
        skeletal.to(dtype_of(train)), train.batch, tokens, length.answer, compiled, features=train.features
    )
    memory = {stage: _memory(sizes, trained.peak, train, stage) for stage in STAGES}
    return {
        **sizes,
        "tokens": length._asdict(),
        "training": {
            "batch": train.batch,
            "precision": train.precision,
            "forward_flops_per_sample": trained.forward // train.batch,
            "backward_flops_per_sample": trained.backward // train.batch,
        },
        "memory": {str(s): {**asdict(m), "lasting": m.lasting, "peak": m.peak} for s, m in memory.items()},
        "judge": {
            "batch": judged_at_once,
            "flops_per_picture": judged.forward // judged_at_once,
            "weights": weights,
            "peak": weights + judged.peak,
        },
    }


def device_memory(train: TrainConfig, gib: float | None = None) -> Device:
    """What one worker may fill: `gib` if given, else the GPU of this machine, else its share of the machine's RAM."""
    if gib is not None:
        return Device(int(gib * 2**30), f"{gib:g} GiB as given")
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return Device(card.total_memory - RESERVED, card.name)
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device(ram // train.workers, f"RAM of this machine / {train.workers} worker(s)")


def will_not_fit(model: ModelConfig, train: TrainConfig, device: Device, sizes: dict[str, Any]) -> ConfigError | None:
    """The error that names what to change, where a worker's predicted peak exceeds its memory; None where it fits.

    Args:
        sizes: of `size`.
    """
    stage = train.zero_stage
    needed = sizes["memory"][str(stage)]
    if needed["peak"] <= device.bytes:
        return None
    ways = [
        f"train.zero_stage={other} (needs {gib(sizes['memory'][str(other)]['peak'])})"
        for other in STAGES[stage + 1 :]
        if train.workers > 1 and sizes["memory"][str(other)]["peak"] <= device.bytes
    ][:1]
    room = device.bytes - needed["lasting"] - needed["buckets"]
    fits = 0
    if train.batch > 1 and needed["lasting"] + needed["step"] <= device.bytes:
        # Activations grow evenly with the batch, from a part that every batch has.
        one = size(model, train.model_copy(update={"batch": 1}))["memory"][str(stage)]["activations"]
        each = max(1, (needed["activations"] - one) / (train.batch - 1))
        fits = min(train.batch - 1, 1 + int((room - one) // each))
    if fits > 0:
        ways.append(f"train.batch={fits} with train.accumulate={-(-train.batch * train.accumulate // fits)}")
    full = [part for part in tuning.PARTS if getattr(model, part).tune == "full" and part != "connector"]
    ways += [f"model.{part}.tune=lora" for part in full]
    if train.precision == "fp32":
        ways.append("train.precision=bf16")
    return ConfigError(
        f"training needs {gib(needed['peak'])} a worker at ZeRO stage {stage} ({gib(needed['weights'])} weights, "
        f"{gib(needed['gradients'] + needed['optimizer'])} gradients and optimizer, {gib(needed['activations'])} "
        f"activations), and there are {gib(device.bytes)} ({device.where})",
        f"set {', or '.join(ways)}" if ways else "take a smaller model or more memory per worker",
    )


def gib(count: float) -> str:
    """Bytes in plain words."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"


def _memory(sizes: dict[str, Any], activations: int, train: TrainConfig, stage: int) -> Memory:
    total = sizes["total"]
    return training_memory(total["stored"], total["trainable"], activations, train, stage)
