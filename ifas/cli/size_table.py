"""The sizes of a model, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ifas.core.config import TrainConfig
from ifas.model.sizing import Device, gib


def size_table(sizes: dict[str, Any], train: TrainConfig, device: Device) -> Iterator[str]:
    """Lines of text from what `sizing.size` returns; the run's own ZeRO stage is marked."""
    tokens, training, judge = sizes["tokens"], sizes["training"], sizes["judge"]
    yield f"{'part':<12}{'parameters':>16}{'trainable':>14}"
    for part in ("vision", "connector", "language", "total"):
        yield f"{part:<12}{sizes[part]['parameters']:>16,}{sizes[part]['trainable']:>14,}"
    told = "" if tokens["exact"] else " (prompt estimated: its tokenizer is not here)"
    yield ""
    prompt = f"{tokens['prompt']} prompt ({sizes['image_tokens']} of them image)"
    yield f"tokens of a sample: {prompt}, up to {tokens['answer']} answer{told}"
    forward, backward = training["forward_flops_per_sample"], training["backward_flops_per_sample"]
    yield f"FLOPs per training sample: {_flops(forward)} forward, {_flops(backward)} backward"
    yield f"FLOPs per judged image:  {_flops(judge['flops_per_picture'])}"
    yield f"memory of the judge:     {gib(judge['peak'])} at {judge['batch']} images at once"
    yield ""
    yield f"training, per worker: {train.workers} workers, batch {train.batch}, {train.precision}"
    yield f"memory of a worker: {gib(device.bytes)} ({device.where})"
    yield f"{'ZeRO':<6}" + "".join(f"{name:>13}" for name in (*_COLUMNS, "peak"))
    for stage, memory in sizes["memory"].items():
        mark = "*" if int(stage) == train.zero_stage else ""
        cells = "".join(f"{gib(memory[name]):>13}" for name in (*_COLUMNS, "peak"))
        yield f"{stage + mark:<6}{cells}" + ("" if memory["peak"] <= device.bytes else "  does not fit")


_COLUMNS = ("weights", "gradients", "optimizer", "buckets", "activations", "step")


def _flops(count: int) -> str:
    for power, unit in ((12, "T"), (9, "G"), (6, "M")):
        if count >= 10**power:
            return f"{count / 10**power:.3g} {unit}FLOP"
    return f"{count} FLOP"
