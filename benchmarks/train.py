"""`python -m benchmarks.train`: what Ray and DeepSpeed cost, what a second worker gives, and what a start takes.

The `laptop` profile on generated JPEG files. The baseline is the same model in a bare torch loop: same batches, made
one step ahead by a thread as well, same optimizer, clipping and thread count. Rates are those of the later steps, from
the loss curve. Every run is a process of its own; "on 1 core" pins it, Ray's own processes included.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figure import figure

STEPS, SKIPPED, BATCH, ROWS = 30, 6, 4, 48
SETTINGS = [f"train.steps={STEPS}", f"train.batch={BATCH}", "train.checkpoint_every=1000"]
#: As long as the captions of the demo.
CAPTION = (
    "A face before a grey wall, soft light from the left. A dark straight rim cuts the picture and fine stripes "
    "cover the skin evenly. It may be a picture on a display, sample {n}."
)


@dataclass(frozen=True)
class Generated:
    """Pictures of 224 x 224 pixels and about 20 KB as JPEG."""

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


def product(workers: int) -> dict[str, Any]:
    """Samples per second of `train`, and the stages of its start."""
    from ifas.core.config import load
    from ifas.training.curve import CURVE_FILE, read
    from ifas.training.driver import train

    config = load("laptop", [*SETTINGS, f"train.workers={workers}"])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        record = train(
            config.model, config.train, manifest(), Generated(), work=Path(folder) / "work", out=out, run_name="bench"
        )
        seconds = [line["seconds"] for line in read(out / CURVE_FILE)]
    rate = (STEPS - SKIPPED) * BATCH * workers / (seconds[-1] - seconds[SKIPPED - 1])
    return {
        "rate": rate,
        "start_up": record.start_up,
        "loader": record.loader_samples_per_second,
        "demand": record.demand_samples_per_second,
    }


def bare() -> dict[str, Any]:
    """Samples per second of a plain torch loop over the same batches."""
    import torch

    from ifas.core.config import load
    from ifas.model import tuning
    from ifas.model.build import build
    from ifas.model.loss import lopsided
    from ifas.training.batches import Batches
    from ifas.training.job import Job, rows_of

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    config = load("laptop", [*SETTINGS, "train.workers=1"])
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
        ends.append(time.perf_counter())
    return {"rate": (STEPS - SKIPPED) * BATCH / (ends[-1] - ends[SKIPPED - 1])}


def alone(part: str, workers: int = 1, cores: int = 2, threads: str = "") -> dict[str, Any]:
    """A part in a process of its own, on the first `cores` cores."""
    env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "DS_ACCELERATOR": "cpu"}
    # Each of Ray's processes would compile its imports again; the Makefile does the same.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    if threads:
        env["OMP_NUM_THREADS"] = threads
    command = [sys.executable, "-m", "benchmarks.train", "--part", part, str(workers)]
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        preexec_fn=lambda: os.sched_setaffinity(0, range(cores)),
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Prints the figures; 1 where a bar is missed."""
    if sys.argv[1:2] == ["--part"]:
        part, workers = sys.argv[2], int(sys.argv[3])
        print(json.dumps(bare() if part == "bare" else product(workers)))
        return 0
    baseline, one, two = [], [], []
    for _ in range(2):  # interleaved: what else the machine does hits all alike
        baseline.append(alone("bare", cores=1, threads="1"))
        one.append(alone("product", 1, cores=1))
        two.append(alone("product", 2, cores=2))
    best = {name: max(part["rate"] for part in parts) for name, parts in (("bare", baseline), ("1", one), ("2", two))}
    ok = figure(
        "training, 1 worker, Ray + DeepSpeed, against a bare torch loop",
        best["1"],
        "samples/s",
        baseline=best["bare"],
        bar=0.9,
        bar_is="ratio >=",
    )
    ok &= figure(
        "training, 2 workers on 2 cores, against 1 worker on 1 core",
        best["2"],
        "samples/s",
        baseline=best["1"],
        bar=1.7,
        bar_is="ratio >=",
    )
    figure("loader, 2 workers, against the model's demand", two[-1]["loader"], "samples/s", baseline=two[-1]["demand"])
    quickest = min((run["start_up"] for run in two), key=lambda stages: sum(stages.values()))
    for stage, seconds in quickest.items():
        figure(f"start: {stage}", seconds, "s")
    ok &= figure("start to first step, 2 workers", sum(quickest.values()), "s", bar=25)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
