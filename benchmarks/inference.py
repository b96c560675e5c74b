"""`python -m benchmarks.inference [--profile NAME] [--batch N] [--repeats N] [--compile]`: the inference engine.

- *judge against a bare forward*: images/s of `Judge.judge` on decoded images, against the same modules (vision tower,
  connector, language backbone, head on the last position) on ready tensors. Two baselines: the modules of the engine
  itself, whose BatchNorms are folded (the bar), and the modules as they are saved.
- *judge against generate*: transformers' `generate` (greedy, KV cache, image embedded in the same call) of the saved
  modules to the end of the explanation, in the same batch (the bar) and row by row.
- *explain against generate*: tokens/s of explanations in a batch, against `generate` row by row.

The weights are those of the profile's packages with a fresh connector, which writes no end token by plan: on both
sides every row decodes exactly `max_answer_tokens` tokens. Both sides have the same dtype and threads. Repetitions are
interleaved, and a ratio is the median of the ratios of each repetition, so that what else the machine does hits both.
On a machine that is never quiet, `--clock cpu` takes this process's CPU seconds, all threads together, for seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.figure import figure
from ifas.core.config import load
from ifas.faces.face import Face
from ifas.model.build import build, save
from ifas.model.build import load as load_model
from ifas.model.judge import DTYPES, Judge


def photos(count: int) -> list[Face]:
    """Decoded images of a phone camera's preview size."""
    rng = np.random.default_rng(0)
    return [Face.whole(rng.integers(0, 256, (640, 480, 3), dtype=np.uint8)) for _ in range(count)]


def inputs(judge: Judge, images: list[Face]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ready tensors: images and prompts."""
    processor = judge.processor
    pixels = processor.pixel_values([processor.views(image) for image in images])
    ids = torch.tensor([processor.prompt_ids]).expand(len(images), -1)
    return pixels.to(judge.model.device), ids.to(judge.model.device)


@torch.inference_mode()
def bare(model: Any, pixels: torch.Tensor, ids: torch.Tensor) -> None:
    """One forward of the modules to the logits of the first answer position."""
    hidden = model.language.get_decoder()(inputs_embeds=model.embed(pixels, ids), use_cache=False).last_hidden_state
    model.language.get_output_embeddings()(hidden[:, -1]).cpu()


@torch.inference_mode()
def generate(model: Any, pixels: torch.Tensor, ids: torch.Tensor, verdict: int, length: int) -> None:
    """transformers' own decoding after the prompt and a verdict."""
    said = torch.full((len(ids), 1), verdict, device=ids.device)
    embeds = model.embed(pixels, torch.cat([ids, said], dim=1))
    mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=ids.device)
    out = model.language.generate(
        inputs_embeds=embeds, attention_mask=mask, do_sample=False, use_cache=True, eos_token_id=None, pad_token_id=0,
        min_new_tokens=length, max_new_tokens=length,
    )  # fmt: skip
    assert out.shape == (len(ids), length)


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def measured(sides: dict[str, Callable[[], None]], repeats: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each side in each repetition; one more of each before, to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, side in sides.items():
            begin = clock()
            side()
            if turn:
                seconds[name].append(clock() - begin)
    return seconds


def main() -> int:
    """Prints the figures; 1 where a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=list(DTYPES))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--clock", default="wall", choices=list(CLOCKS))
    args = parser.parse_args()
    clock = CLOCKS[args.clock]
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        save(*build(load(args.profile).model), folder)
        judge = Judge.load(folder, device=args.device, dtype=args.dtype, batch=args.batch, compile=args.compile)
        plain = load_model(folder, dtype=DTYPES[args.dtype])[0].to(args.device)
    processor, images = judge.processor, photos(args.batch)
    pixels, ids = inputs(judge, images)
    yes, length = processor.verdicts.yes[0], processor.max_answer_tokens
    processor.end_id = -1  # no row ends early

    def rows() -> None:
        for row in range(args.batch):
            generate(plain, pixels[row : row + 1], ids[row : row + 1], yes, length)

    about = {"profile": args.profile, "batch": args.batch, "threads": args.threads, "device": args.device,
             "dtype": args.dtype, "compile": args.compile, "clock": args.clock,
             "prompt": ids.shape[1], "tokens": length}  # fmt: skip
    print(json.dumps(about), flush=True)
    sides = {
        "judge": lambda: judge.judge(images),
        "bare": lambda: bare(judge.model, pixels, ids),
        "bare as saved": lambda: bare(plain, pixels, ids),
    }
    short = measured(sides, 3 * args.repeats, clock)
    sides = {
        "judge": lambda: judge.judge(images),
        "explain": lambda: judge.explain(images, [True] * args.batch),
        "generate": lambda: generate(plain, pixels, ids, yes, length),
        "rows": rows,
    }
    long = measured(sides, args.repeats, clock)

    def faster(
        name: str, seconds: dict[str, list[float]], ours: str, theirs: str, bar: float | None, count: int
    ) -> bool:
        ratio = median(b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True))
        value = count / median(seconds[ours])
        unit = "images/s" if count == args.batch else "tokens/s"
        return figure(name, value, unit, baseline=value / ratio, bar=bar, bar_is="ratio >=")

    tokens = args.batch * length
    ok = faster("judge against a bare forward", short, "judge", "bare", 0.9, args.batch)
    faster("judge against a bare forward of the saved modules", short, "judge", "bare as saved", None, args.batch)
    ok &= faster("judge against generate", long, "judge", "generate", 8.0, args.batch)
    faster("judge against generate row by row", long, "judge", "rows", None, args.batch)
    ok &= faster("explain against generate row by row", long, "explain", "rows", 4.0, tokens)
    faster("explain against generate", long, "explain", "generate", None, tokens)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
