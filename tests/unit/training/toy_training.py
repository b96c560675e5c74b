"""A task that the tiny model can learn in seconds: bright pictures are bona fide, dark ones attacks."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ifas.core.config import RunConfig, load
from ifas.core.manifest import CAPTION_COLUMNS, COLUMNS
from ifas.training.job import Job, Row, rows_of

CAPTIONS = {
    "live": "A person looks at the camera.",
    "print": "A face on a sheet of printed paper.",
    "replay": "A face on the screen of a phone.",
}


def picture(row: int) -> bytes:
    """PNG bytes of the sample in a row; its kind goes round live, print, replay."""
    rng = np.random.default_rng(row)
    low = (170, 20, 60)[row % 3]
    pixels = rng.integers(low, low + 60, (72, 80, 3), dtype=np.uint8)
    if row % 3 == 2:
        pixels[..., 2] = 250
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@dataclass(frozen=True)
class ToyImages:
    """An ImageSource that makes its pictures.

    With `flag`, whichever process first reads the sample `kill_at` is killed, once: the flag file says it was.
    With `wait`, reading is slow until that file exists: a test has time to kill the driver in the middle.
    With `sockets`, the addresses at which Ray's processes and the workers listen are written into that file.
    """

    flag: Path | None = None
    kill_at: int = -1
    wait: str = ""
    sockets: Path | None = None

    def read(self, shard: str, row: int) -> bytes:
        if self.wait and not os.path.exists(self.wait):
            time.sleep(0.4)
        if self.flag and row == self.kill_at and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.sockets and not self.sockets.exists():
            self.sockets.write_text(json.dumps(listening()))
        return picture(row)


def listening() -> list[tuple[str, str]]:
    """Name and address of each listening socket of the processes that this worker's driver has started."""
    import psutil

    raylet = next(parent for parent in psutil.Process().parents() if parent.name() == "raylet")
    found = []
    for process in raylet.parent().children(recursive=True):  # type: ignore[union-attr]
        with suppress(psutil.NoSuchProcess):  # spare workers come and go
            sockets = process.net_connections("inet")
            found += [(process.name(), one.laddr.ip) for one in sockets if one.status == psutil.CONN_LISTEN]
    return found


def manifest(n: int = 18) -> pd.DataFrame:
    """A captioned manifest of n training rows."""
    kinds = [("live", "print", "replay")[i % 3] for i in range(n)]
    frame = pd.DataFrame(
        {
            "sample_id": [f"{i:064x}" for i in range(n)],
            "shard": "0.parquet",
            "row": range(n),
            "spoof_type": kinds,
            "label": ["live" if k == "live" else "spoof" for k in kinds],
            "caption": [CAPTIONS[k] for k in kinds],
            "status": "released",
        }
    )
    for column in COLUMNS + CAPTION_COLUMNS:
        if column.name not in frame:
            frame[column.name] = ""
    return frame


def config(*overrides: str) -> RunConfig:
    return load("tiny", list(overrides))


def job(run: Path, *overrides: str, rows: tuple[Row, ...] | None = None, images: Any = None) -> Job:
    """A job of one worker in this process."""
    made = config("train.workers=1", *overrides)
    run.mkdir(parents=True, exist_ok=True)
    return Job(
        model=made.model, train=made.train, rows=rows or rows_of(manifest()), images=images or ToyImages(), run=run
    )


def runaway(made: Job, *parts: str) -> Job:
    """The job with a learning rate for these parts that destroys the weights; no configuration takes such a one."""
    sections = {part: getattr(made.model, part).model_copy(update={"lr": 1e18}) for part in parts}
    return replace(made, model=made.model.model_copy(update=sections))
