"""What runs in each Ray Train worker: the loop, with Ray's reports and notices."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import ray.train

from ifas.core import errors, storage
from ifas.core.environment import prepare
from ifas.core.errors import IfasError
from ifas.training.job import Job
from ifas.training.ray_ranks import take_place
from ifas.training.startup import StartupTimer

ERROR_FILE = "error.json"
#: Left by workers that made a checkpoint since their machine is about to be taken away.
PREEMPTED_FILE = "preempted"


def work(config: dict[str, Any]) -> None:
    """Trains this rank's share of `config["job"]`; `config["began"]` is when the start began, seconds since the epoch.

    Ray restarts the workers after any error. An error that another try can't repair (a full disk, a bad image) is
    written to ERROR_FILE; the restarted workers find it and return at once, and the driver raises it.
    """
    job: Job = config["job"]
    job.run.mkdir(parents=True, exist_ok=True)
    file = job.run / ERROR_FILE
    if file.is_file():
        return
    clock = StartupTimer(config["began"])
    clock.mark("Ray")
    prepare()
    take_place()
    # Imported here, so that Ray's own processes, which only pass this function on, do not import the model's libraries.
    from ifas.training.loop import run

    # Asking for notices makes all ranks wait for each other, and nobody takes this machine away from itself.
    notice = _notice if job.train.where == "rayjob" else (lambda: False)
    try:
        ended = run(job, ray.train.report, notice, clock)
    except IfasError as error:
        leave_error(job, error)
        raise
    if ended == "preempted":
        (job.run / PREEMPTED_FILE).touch()
        if job.uri:
            storage.store(job.run / PREEMPTED_FILE, f"{job.uri}/{PREEMPTED_FILE}")


def _notice() -> bool:
    """Whether a machine of this training will be drained, as Ray knows it."""
    return ray.train.get_preemption_info() is not None


def leave_error(job: Job, error: IfasError) -> None:
    """Writes an error for the driver. On a full disk this may fail as well; the driver then has Ray's text of it."""
    path = job.run / ERROR_FILE
    try:
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(json.dumps([type(error).__name__, error.what, error.fix]), encoding="utf-8")
        beside.replace(path)
        if job.uri:
            storage.store(path, f"{job.uri}/{ERROR_FILE}")
    except (OSError, IfasError):
        return


def left_error(path: Path) -> IfasError | None:
    """The error that a worker left, if any."""
    if not path.is_file():
        return None
    kind, what, fix = json.loads(path.read_text(encoding="utf-8"))
    made: IfasError = getattr(errors, kind, errors.TrainingError)(what, fix)
    return made
