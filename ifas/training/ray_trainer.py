"""Ray Train around the loop: starts the workers, and starts them again from the last checkpoint when one dies."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchTrainer

from ifas.compute.relay import heard
from ifas.core import storage
from ifas.core.errors import IfasError, TrainingError
from ifas.core.progress import emit
from ifas.training.job import Job
from ifas.training.ray_ranks import Ranks
from ifas.training.ray_worker import PREEMPTED, work


def fit(job: Job, began: float) -> None:
    """Trains `job` on the Ray that this process is connected to; the model is then in FINAL, of `job.uri` or `job.run`.

    A run whose driver or worker was killed goes on from its last checkpoint. An error of ifas at one rank ends all
    ranks and is raised: another try would meet it again. Workers that died are started again `max_failures` times. A
    preemption, before which the workers made a checkpoint, counts towards `max_preemptions` instead.

    Args:
        began: when the first start began, seconds since the epoch.

    Raises:
        TrainingError: the workers failed or were preempted too often.
        IfasError: what a worker raised.
    """
    config = job.train
    failures = preemptions = 0
    sign = _sign(job)
    while True:
        failure: TrainingFailedError | None = None
        with heard() as (queue, said):
            try:
                _trainer(job, {"job": job, "began": began, "queue": queue, "sign": sign}).fit()
            except TrainingFailedError as error:
                failure = error
        if failure is not None:
            if errors := [one for one in said if isinstance(one, IfasError)]:
                raise errors[0] from failure
            if failures >= config.max_failures or not isinstance(failure, WorkerGroupError):
                logs = f"{os.environ.get('RAY_TMPDIR', '/tmp')}/ray/session_latest/logs/train"  # noqa: S108
                raise TrainingError(
                    f"training failed after {failures} restart(s); {_cause(failure)}",
                    f"the workers' logs are in {logs}; the same command goes on from the last checkpoint",
                ) from failure
            failures += 1
            emit("note", "train", text=f"{_cause(failure)}; restart {failures} of {config.max_failures}")
        elif PREEMPTED in said:
            preemptions += 1
            if 0 <= config.max_preemptions < preemptions:
                raise TrainingError(
                    f"training was preempted {preemptions} times, train.max_preemptions is {config.max_preemptions}",
                    "the same command goes on from the last checkpoint; -1 allows any number of preemptions",
                )
            emit("note", "train", text=f"preempted ({preemptions} so far): a checkpoint was made, starting again")
        else:
            break
        began = time.time()


def _sign(job: Job) -> str:
    """URI of a new object in the run's store, by which workers know that theirs is the same store."""
    if not job.uri:
        return ""
    uri = f"{job.uri}/signs/{uuid.uuid4().hex}"
    with tempfile.NamedTemporaryFile() as file:
        storage.store(Path(file.name), uri)
    return uri


def _trainer(job: Job, given: dict[str, Any]) -> TorchTrainer:
    config = job.train
    # Ray's own records; checkpoints are ours, see `checkpoint`.
    path, filesystem = (f"{job.uri}/ray", _arrow(job.uri)) if job.uri else (str(job.run.absolute()), None)
    return TorchTrainer(
        work,
        train_loop_config=given,
        torch_config=Ranks(),
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker={"CPU": 1, **({"GPU": config.gpus_per_worker} if config.gpus_per_worker else {})},
            # Ranks without GPUs share the CPUs of their node, however many they ask for.
            placement_strategy="PACK" if config.gpus_per_worker else "SPREAD",
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=path.partition("://")[2] if filesystem else path,
            storage_filesystem=filesystem,
            # Other failures are told apart here: Ray would also try again after an error that stays.
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=config.max_preemptions),
        ),
    )


def _arrow(uri: str) -> Any:
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return PyFileSystem(FSSpecHandler(storage.filesystem(uri)))


def _cause(error: TrainingFailedError) -> str:
    causes = error.worker_failures if isinstance(error, WorkerGroupError) else {0: error}
    rank, cause = next(iter(causes.items()))
    lines = [line for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    return f"worker {rank}: {lines[-1].strip()}"
