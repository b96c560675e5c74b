"""`python -m benchmarks.gpu [--profile large] [--device cuda] [--parts ...]`: the model on a GPU, random weights, bf16.

Measures the card's own ceilings first (copy, matrix product), then by parts, all of them by default:

- `plain`: a training step of a plain loop;
- `compiled`: the same with `train.compile`, which needs a C++ compiler;
- `judge`: the judgment, then judge and decoder against transformers' `generate`, every row as long as it can get;
- `deepspeed`: the step of the product's engine against the plain loop's, compiled or not as those before; needs
  DeepSpeed.

Peak memory is compared with what `ifas model describe` predicts. Needs torch, transformers, pydantic and PyYAML; where
peft is missing, ALoRE takes the place of LoRA, and the name of the figure says so. Without a GPU nothing is measured.
All samples have full length.

Model FLOPs are those of `ifas.model.dry_run`: recomputation is not counted, a causal attention in full. MFU is their
rate over the card's dense bf16 rate as its maker states it, where the card is in `STATED`, else over the measured one.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from benchmarks.figure import figure

#: Part of a card's name -> dense bf16 FLOP/s of its data sheet. Searched in this order.
STATED = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}

PARTS = ("plain", "compiled", "judge", "deepspeed")
MFU_BAR, COMPILED_MFU_BAR, DEEPSPEED_BAR, JUDGE_BAR, MEMORY_BAR = 0.45, 0.52, 0.95, 0.55, 0.10

#: Images at once where answers are decoded.
DECODED = 16


def best(device: str, run: Callable[[], Any], tries: int) -> float:
    """Seconds of the fastest of `tries` runs, after two that warm up."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds = []
    for _ in range(tries + 2):
        wait()
        began = time.perf_counter()
        run()
        wait()
        seconds.append(time.perf_counter() - began)
    return min(seconds[2:])


def apart(device: str, before: Callable[[], Any], run: Callable[[], Any], tries: int = 3) -> float:
    """Seconds of the fastest of `tries` runs, each after `before`, which does not count."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds = []
    for _ in range(tries):
        before()
        wait()
        began = time.perf_counter()
        run()
        wait()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def ceilings(device: str, tries: int) -> tuple[float, float]:
    """What this card reaches: bytes copied and read per second, and bf16 FLOP/s of a square matrix product."""
    import torch

    numbers, side = (2**29, 8192) if device == "cuda" else (2**22, 512)
    source = torch.empty(numbers, dtype=torch.bfloat16, device=device).fill_(1)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / best(device, lambda: target.copy_(source), tries)
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(left)
    multiplied = 2 * side**3 / best(device, lambda: torch.mm(left, right, out=out), tries)
    return copied, multiplied


def settings(profile: str, batch: int | None, *more: str) -> Any:
    """The profile in bf16 on one worker without ZeRO; LoRA becomes ALoRE where peft is missing."""
    from ifas.core.config import load

    overrides = ["train.precision=bf16", "train.workers=1", "train.zero_stage=0", "train.accumulate=1"]
    overrides += ["model.vision.tune=frozen", f"model.language.tune={'lora' if find_spec('peft') else 'alore'}"]
    return load(profile, [*overrides, *([f"train.batch={batch}"] if batch else []), *more])


def fitting_batch(train: Any, memory: dict[str, int]) -> int:
    """The profile's batch, or the largest of its doublings up to 64 samples that leaves a tenth of the card free."""
    from ifas.model.sizing import device_memory

    batch, room = train.batch, 0.9 * device_memory(train).bytes - memory["lasting"]
    while 2 * batch <= 64 and memory["activations"] * 2 * batch / train.batch <= room:
        batch *= 2
    return batch


def random_model(config: Any, device: str) -> Any:
    """The model of a configuration in bf16 with its adapters, built on the device itself."""
    import torch

    from ifas.model import tuning
    from ifas.model.build import ifas_config
    from ifas.model.fused_norm import fuse
    from ifas.model.ifas_model import IfasModel

    shape = ifas_config(config.model, download=False)
    dtype, torch_default = torch.bfloat16, torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = IfasModel(shape)
    finally:
        torch.set_default_dtype(torch_default)
    tuning.prepare(model, config.model)
    model.to(device, dtype)
    if device == "cuda":
        fuse(model.language)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "lora_" not in name and ".alore." not in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


class Trainer:
    """A training step with the numbers that DeepSpeed keeps at stage 0 in bf16: float32 copies under AdamW."""

    def __init__(self, model: Any, config: Any, batch: dict[str, Any]) -> None:
        import torch

        self.model, self.batch = model.train(), batch
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.copies = [p.detach().float() for p in self.trained]
        self.optimizer = torch.optim.AdamW(self.copies, lr=config.model.connector.lr, fused=True)

    def step(self) -> None:
        """Forward, backward, update."""
        self.backward()
        self.update()

    def backward(self) -> None:
        """Gradients of the batch."""
        from ifas.model.loss import lopsided

        out = self.model(**self.batch)
        lopsided(out.sums, out.counts, 0.7).backward()

    def update(self) -> None:
        """The optimizer's step."""
        import torch

        for copy, parameter in zip(self.copies, self.trained, strict=True):
            copy.grad = None if parameter.grad is None else parameter.grad.float()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_copy_(self.trained, self.copies)
        for parameter in self.trained:
            parameter.grad = None


def peak_bytes(device: str, run: Callable[[], Any], resident: int) -> int:
    """Peak bytes held by tensors during `run`; on a CPU, whose allocator keeps no record, from the profiler."""
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    live = peak = 0
    events: Any = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return resident + peak


def inputs(config: Any, sizes: dict[str, Any], device: str) -> dict[str, Any]:
    """Random images and ids, every sample as long as it can get; `image_token_id` is 0 in a model built like this."""
    import torch

    from ifas.model.loss import INTERPRETATION, JUDGMENT, PROMPT

    prompt, answer = sizes["tokens"]["prompt"], sizes["tokens"]["answer"]
    batch, side = config.train.batch, config.model.vision.image_size
    generator = torch.Generator(device).manual_seed(0)
    made = {"generator": generator, "device": device}
    ids = torch.randint(1, 200, (batch, prompt + answer), **made)
    ids[:, : sizes["image_tokens"]] = 0
    parts = torch.full_like(ids, PROMPT)
    parts[:, prompt:] = INTERPRETATION
    parts[:, prompt] = JUDGMENT
    views = len(config.model.views)
    pixels = torch.randint(0, 256, (batch, views, 3, side, side), dtype=torch.uint8, **made)
    return {"pixel_values": pixels, "input_ids": ids, "parts": parts}


def main() -> int:
    """Prints the figures; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--profile", default="large")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries the script itself")
    parser.add_argument("--batch", type=int, help="samples in a training step; else as many as fit, up to 64")
    parser.add_argument("--judged", type=int, default=64, help="pictures judged at once")
    parser.add_argument("--tries", type=int, default=10)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args()
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        print(json.dumps({"name": "gpu", "value": None, "why": "no GPU: not measured"}))
        return 0
    card = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(json.dumps({"name": "card", "value": card, "torch": torch.__version__}))
    # Bars are those of a GPU and of a model that fills it; with --device cpu the figures have none.
    return 0 if measure(args, card) else 1


def measure(args: argparse.Namespace, card: str) -> bool:
    """Whether all bars are held."""
    from ifas.model.compiled import blocks, compile_blocks
    from ifas.model.sizing import size

    device = args.device
    copied, multiplied = ceilings(device, args.tries)
    figure("copy", copied / 1e9, "GB/s")
    figure("matrix product, bf16", multiplied / 1e12, "TFLOP/s")
    stated = next((rate for part, rate in STATED.items() if part in card), multiplied)

    config = settings(args.profile, args.batch)
    sizes = size(config.model, config.train, judged_at_once=args.judged)
    if device == "cuda" and not args.batch:
        config = settings(args.profile, fitting_batch(config.train, sizes["memory"]["0"]))
        sizes = size(config.model, config.train, judged_at_once=args.judged)
    model = random_model(config, device)
    batch = inputs(config, sizes, device)
    ok, seconds, sized = True, {}, {}
    for part in ("plain", "compiled"):
        if part not in args.parts:
            continue
        if part == "compiled":
            compiled = settings(args.profile, config.train.batch, "train.compile=true")
            sizes = {**sizes, "memory": size(compiled.model, compiled.train)["memory"]}
            compile_blocks(model)
        sized[part] = sizes["memory"]
        held, seconds[part] = training(args, config, model, batch, part, sizes, stated, multiplied)
        ok &= held
    if "compiled" in seconds:
        for block in (*blocks(model.vision), *blocks(model.language)):
            del block.forward
    if "judge" in args.parts:
        ok &= judging(args, config, model, sizes, multiplied)
    if "deepspeed" in args.parts and find_spec("deepspeed"):
        del model
        gc.collect()
        ok &= with_deepspeed(args, config, batch, sized, seconds)
    return ok


def training(
    args: argparse.Namespace,
    config: Any,
    model: Any,
    batch: dict[str, Any],
    part: str,
    sizes: dict[str, Any],
    stated: float,
    multiplied: float,
) -> tuple[bool, float]:
    """The plain loop. Returns whether the bars are held, and the seconds of a step."""
    barred = args.device == "cuda"
    trainer = Trainer(model, config, batch)
    adapter = {"lora": "LoRA", "alore": "ALoRE"}[config.model.language.tune]
    name = f"training {args.profile}, {adapter}, batch {config.train.batch}"
    bar = MFU_BAR
    if part == "compiled":
        name, bar = f"{name}, compiled", COMPILED_MFU_BAR
        began = time.perf_counter()
        trainer.step()
        figure(f"{name}: first step, which compiles", time.perf_counter() - began, "s")
    seconds = best(args.device, trainer.step, args.tries)
    told = sizes["training"]
    flops = config.train.batch * (told["forward_flops_per_sample"] + told["backward_flops_per_sample"])
    figure(name, config.train.batch / seconds, "samples/s")
    ok = figure(f"{name}: MFU", flops / seconds / stated, "", bar=bar if barred else None, bar_is="value >=")
    figure(f"{name}: share of the measured matrix product", flops / seconds / multiplied, "")
    figure(f"{name}: optimizer's step", apart(args.device, trainer.backward, trainer.update), "s")
    predicted = sizes["memory"]["0"]
    peak = peak_bytes(args.device, trainer.step, predicted["lasting"] - predicted["gradients"])
    return ok & _compared(f"{name}: peak memory", peak, predicted["peak"], barred), seconds


def judging(args: argparse.Namespace, config: Any, model: Any, sizes: dict[str, Any], multiplied: float) -> bool:
    """The judge, its adapters merged. Returns whether the bars are held."""
    from ifas.model.tuning import merge

    device, barred = args.device, args.device == "cuda"
    merge(model)
    model.eval().requires_grad_(False)
    many = {**config.train.model_dump(), "batch": args.judged}
    shown = inputs(config.model_copy(update={"train": type(config.train)(**many)}), sizes, device)
    pixels, prompt = shown["pixel_values"], shown["input_ids"][:, : sizes["tokens"]["prompt"]]
    seconds = best(device, lambda: model.prefill(pixels, prompt), args.tries)
    judge = sizes["judge"]
    name = f"judge {args.profile}, {args.judged} at once"
    figure(name, args.judged / seconds, "pictures/s")
    rate = args.judged * judge["flops_per_picture"] / seconds
    bar = JUDGE_BAR if barred else None
    ok = figure(f"{name}: share of the measured matrix product", rate / multiplied, "", bar=bar, bar_is="value >=")
    peak = peak_bytes(device, lambda: model.prefill(pixels, prompt), judge["weights"])
    ok &= _compared(f"{name}: peak memory", peak, judge["peak"], barred)
    return ok & against_generate(args, model, pixels[:DECODED], prompt[:DECODED], sizes["tokens"]["answer"] - 1)


def with_deepspeed(
    args: argparse.Namespace, config: Any, batch: dict[str, Any], sized: dict[str, Any], bare: dict[str, float]
) -> bool:
    """The step of the product's engine on one worker, against the plain loop's `bare` seconds by part."""
    import torch

    from ifas.core.config import load
    from ifas.model.compiled import compile_blocks
    from ifas.model.loss import lopsided
    from ifas.model.tuning import parameter_groups
    from ifas.training.engine import Engine, join

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    stage = load(args.profile).train.zero_stage
    train = config.train.model_copy(update={"zero_stage": stage, "gpus_per_worker": int(args.device == "cuda")})
    join(train)
    model = random_model(config, args.device).train()
    engine = Engine(model, parameter_groups(model, config.model, train.weight_decay), train)

    def backward() -> None:
        engine.begin(0)
        out = engine.forward(batch)
        engine.backward(lopsided(out.sums, out.counts, 0.7), last=True)

    def update() -> None:
        engine.step(skip=not bool(torch.isfinite(engine.gradient_sizes()).all()))

    def step() -> None:
        backward()
        update()

    barred, ok = args.device == "cuda", True
    for part, seconds in bare.items():
        name = f"training {args.profile}, batch {train.batch}, DeepSpeed's ZeRO stage {stage} on one worker"
        if part == "compiled":
            compile_blocks(model)
            name = f"{name}, compiled"
        rate = train.batch / best(args.device, step, args.tries)
        bar = DEEPSPEED_BAR if barred else None
        name_against = f"{name}, against the plain loop"
        ok &= figure(name_against, rate, "samples/s", baseline=train.batch / seconds, bar=bar, bar_is="ratio >=")
        figure(f"{name}: optimizer's step", apart(args.device, backward, update), "s")
        predicted = sized[part][str(stage)]
        peak = peak_bytes(args.device, step, predicted["lasting"] - predicted["gradients"])
        ok &= _compared(f"{name}: peak memory", peak, predicted["peak"], barred)
    return ok


def against_generate(args: argparse.Namespace, model: Any, pixels: Any, prompt: Any, tokens: int) -> bool:
    """The judge and the decoder of the inference engine against transformers' `generate` of the same modules."""
    from benchmarks.inference import generate
    from ifas.model.decoding import greedy

    count, device, barred = len(prompt), args.device, args.device == "cuda"

    def explain() -> None:
        _, cache = model.prefill(pixels, prompt)
        assert len([*greedy(model.language, cache, [[1]] * count, end_id=-1, limits=[tokens] * count)]) == tokens

    def rows() -> None:
        for row in range(count):
            generate(model, pixels[row : row + 1], prompt[row : row + 1], 1, tokens)

    tries = min(args.tries, 3)
    judged = best(device, lambda: model.prefill(pixels, prompt), args.tries)
    explained = best(device, explain, tries)
    together = best(device, lambda: generate(model, pixels, prompt, 1, tokens), tries)
    by_row = best(device, rows, 1)
    name, bar = f"judge {args.profile}, {count} at once, against generate", 8 if barred else None
    ok = figure(name, count / judged, "pictures/s", baseline=count / together, bar=bar, bar_is="ratio >=")
    figure(f"{name} row by row", count / judged, "pictures/s", baseline=count / by_row)
    name, bar, made = (
        f"explain {args.profile}, {count} at once, against generate",
        4 if barred else None,
        count * tokens,
    )
    rate, row_rate = made / explained, made / by_row
    ok &= figure(f"{name} row by row", rate, "tokens/s", baseline=row_rate, bar=bar, bar_is="ratio >=")
    figure(name, rate, "tokens/s", baseline=made / together)
    return ok


def _compared(name: str, measured: int, predicted: int, barred: bool) -> bool:
    """A measured peak against the predicted one; the bar is on how far they are apart."""
    figure(name, measured / 2**30, "GiB", baseline=predicted / 2**30)
    apart = abs(measured - predicted) / predicted
    return figure(f"{name}, apart from `describe`", apart, "", bar=MEMORY_BAR if barred else None)


if __name__ == "__main__":
    sys.exit(main())
