"""Ray Train around the loop: starts the workers, and starts them again from the last checkpoint when one dies."""

from __future__ import annotations

import os
import time
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchTrainer

from ifas.core import storage
from ifas.core.config import TrainConfig
from ifas.core.errors import IfasError, TrainingError
from ifas.core.progress import emit
from ifas.training.job import FINAL, Job
from ifas.training.ray_ranks import Ranks
from ifas.training.ray_worker import ERROR_FILE, PREEMPTED_FILE, left_error, work
from ifas.training.startup import fetch_log


def fit(job: Job, began: float) -> None:
    """Trains `job` on the Ray that this process is connected to; the model is then in `job.run / FINAL`.

    A run whose driver or worker was killed goes on from its last checkpoint. An error that another try can't repair is
    raised at once. Workers that died are started again `max_failures` times. A preemption, before which the workers
    made a checkpoint, counts towards `max_preemptions` instead.

    Args:
        began: when the first start began, seconds since the epoch.

    Raises:
        TrainingError: the workers failed or were preempted too often.
        IfasError: what a worker raised.
    """
    config = job.train
    preemptions = 0
    while True:
        _forget(job)
        try:
            _trainer(job, began).fit()
        except TrainingFailedError as error:
            raise (_left_error(job) or _failed(error, config)) from error
        if left := _left_error(job):
            raise left
        if not _preempted(job):
            break
        preemptions += 1
        if 0 <= config.max_preemptions < preemptions:
            raise TrainingError(
                f"training was preempted {preemptions} times, train.max_preemptions is {config.max_preemptions}",
                "the same command goes on from the last checkpoint; -1 allows any number of preemptions",
            )
        emit("note", "train", text=f"preempted ({preemptions} so far): a checkpoint was made, starting again")
        began = time.time()
    if job.uri and not (job.run / FINAL).is_dir() and storage.exists(f"{job.uri}/{FINAL}.done"):
        storage.fetch(f"{job.uri}/{FINAL}", job.run / FINAL)
        fetch_log(job)


def _trainer(job: Job, began: float) -> TorchTrainer:
    config = job.train
    # Ray's own records; checkpoints are ours, see `checkpoint`.
    path, filesystem = (f"{job.uri}/ray", _arrow(job.uri)) if job.uri else (str(job.run.absolute()), None)
    return TorchTrainer(
        work,
        train_loop_config={"job": job, "began": began},
        torch_config=Ranks(),
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker={"CPU": 1, **({"GPU": config.gpus_per_worker} if config.gpus_per_worker else {})},
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=path.partition("://")[2] if filesystem else path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(
                max_failures=config.max_failures, max_preemption_failures=config.max_preemptions
            ),
        ),
    )


def _arrow(uri: str) -> Any:
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return PyFileSystem(FSSpecHandler(storage.filesystem(uri)))


def _forget(job: Job) -> None:
    for name in (ERROR_FILE, PREEMPTED_FILE):
        (job.run / name).unlink(missing_ok=True)
        if job.uri:
            storage.delete(f"{job.uri}/{name}")


def _left_error(job: Job) -> IfasError | None:
    if job.uri and storage.exists(f"{job.uri}/{ERROR_FILE}"):
        storage.fetch(f"{job.uri}/{ERROR_FILE}", job.run / ERROR_FILE)
    return left_error(job.run / ERROR_FILE)


def _preempted(job: Job) -> bool:
    return (job.run / PREEMPTED_FILE).exists() or bool(job.uri and storage.exists(f"{job.uri}/{PREEMPTED_FILE}"))


def _failed(error: TrainingFailedError, config: TrainConfig) -> TrainingError:
    causes = error.worker_failures if isinstance(error, WorkerGroupError) else {0: error}
    rank, cause = next(iter(causes.items()))
    lines = [line for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    return TrainingError(
        f"training failed after {config.max_failures} restart(s); worker {rank}: {lines[-1].strip()}",
        f"the workers' logs are in {os.environ.get('RAY_TMPDIR', '/tmp')}/ray/session_latest/logs/train; "  # noqa: S108
        "the same command goes on from the last checkpoint",
    )
