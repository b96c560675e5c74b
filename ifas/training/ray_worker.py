"""What runs in each Ray Train worker: the loop, with Ray's checkpoints."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint
from ray.train.v2.api.report_config import CheckpointUploadMode

from ifas.core import errors
from ifas.core.errors import IfasError
from ifas.training.job import Job

ERROR_FILE = "error.json"


def work(config: dict[str, Any]) -> None:
    """Trains this rank's share of `config["job"]`.

    Ray restarts the workers after any error. One that another try can't mend (a full disk, a bad picture) is left in
    ERROR_FILE; the restarted workers find it and return at once, and the driver raises it.
    """
    job: Job = config["job"]
    told = job.run / ERROR_FILE
    if told.is_file():
        return
    # Here, so that Ray's own processes, which only pass this function on, do not import the model's libraries.
    from ifas.training.loop import run

    latest = ray.train.get_checkpoint()
    try:
        run(job, _report, Path(latest.path) if latest else None)
    except IfasError as error:
        tell(told, error)
        raise


def _report(metrics: dict[str, float], folder: Path) -> None:
    # The checkpoint lies in Ray's storage already, written by all ranks and whole: nothing is left to upload.
    ray.train.report(metrics, checkpoint=Checkpoint(str(folder)), checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD)


def tell(path: Path, error: IfasError) -> None:
    """Leaves an error for the driver. On a full disk this may fail as well; Ray then brings the error's text."""
    try:
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(json.dumps([type(error).__name__, error.what, error.fix]), encoding="utf-8")
        beside.replace(path)
    except OSError:
        return


def told(path: Path) -> IfasError | None:
    """The error that a worker left, if any."""
    if not path.is_file():
        return None
    kind, what, fix = json.loads(path.read_text(encoding="utf-8"))
    made: IfasError = getattr(errors, kind, errors.TrainingError)(what, fix)
    return made
