"""Starts of a run: how long each took until its first step, where it began, and what work was lost before it."""

from __future__ import annotations

import json
import time
from typing import Any

from ifas.core import storage
from ifas.training.curve import CURVE_FILE, read
from ifas.training.job import STARTS_FILE, Job


class StartupTimer:
    """Seconds of each stage of a start, one after another.

    Args:
        began: when the start began, seconds since the epoch: its first stage may pass in another process.
    """

    def __init__(self, began: float | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.time() if began is None else began

    def mark(self, stage: str) -> None:
        """A stage is over."""
        now = time.time()
        self.seconds[stage], self._last = round(now - self._last, 3), now

    def text(self) -> str:
        """The stages in one line."""
        stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
        return f"first step after {sum(self.seconds.values()):.1f} s: {stages}"


class StartLog:
    """The file of a run that has a line for each start. Rank 0 writes it.

    Args:
        job: of the run.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.path = job.run / STARTS_FILE

    def begin(self, step: int, workers: int) -> None:
        """A start that goes on after `step` steps; later steps of an earlier start are lost."""
        if self.job.uri and not self.path.is_file():  # another machine began this run
            fetch_log(self.job)
        curve = self.job.run / CURVE_FILE
        made = max((line["step"] for line in read(curve)), default=0) if curve.is_file() else 0
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "lost": max(0, made - step), "workers": workers}) + "\n")
        self.put()

    def put(self) -> None:
        """Uploads the run's records beside its checkpoints, if they are in a store."""
        if not self.job.uri:
            return
        for path in (self.path, self.job.run / CURVE_FILE):
            if path.is_file():
                storage.store(path, f"{self.job.uri}/log/{path.name}")

    def lines(self) -> list[dict[str, Any]]:
        """All starts: step, lost, workers."""
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]


def fetch_log(job: Job) -> None:
    """Downloads a run's records from the store."""
    for name in (STARTS_FILE, CURVE_FILE):
        if storage.exists(f"{job.uri}/log/{name}"):
            storage.fetch(f"{job.uri}/log/{name}", job.run / name)
