"""What rank 0 records of a run for people: its starts, the loss curve (also to MLflow), the progress bar."""

from __future__ import annotations

import time

from torch import distributed as dist

from ifas.core.progress import Progress, emit
from ifas.training.curve import CURVE_FILE, Curve
from ifas.training.job import Job
from ifas.training.startup import StartLog
from ifas.training.step import StepLosses
from ifas.training.tracking import sink


class RunLog:
    """The records of one start, on rank 0.

    Args:
        job: of the training.
        start: steps that are done already.
    """

    def __init__(self, job: Job, start: int) -> None:
        self._starts = StartLog(job)
        self._starts.begin(start, dist.get_world_size())  # reads the curve, from which `Curve` drops what is lost
        if start:
            emit("note", "train", text=f"continues after step {start} of {job.train.steps}")
        self._curve = Curve(job.run / CURVE_FILE, start)
        self._sink = sink(job)
        self._progress = Progress("train", total=job.train.steps, unit="steps", done=start)
        self._start, self._began = start, time.monotonic()

    def add(self, done: int, losses: StepLosses) -> None:
        """The losses of the step after which `done` are done."""
        self._curve.add(done, losses)
        if self._sink:
            self._sink.add(done, losses)
        left = (time.monotonic() - self._began) / (done - self._start) * (self._progress.total - done)
        self._progress.advance(**losses.shown, eta=round(left, 1))

    def put(self) -> None:
        """Uploads the records beside the run's checkpoints, if they are in a store."""
        self._starts.put()

    def close(self) -> None:
        """The steps have ended."""
        if self._sink:
            self._sink.close()
