"""Ray Train around the loop: starts the workers, and starts them again from the last checkpoint when one dies."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from ifas.core import storage
from ifas.core.config import TrainConfig
from ifas.core.errors import IfasError, TrainingError
from ifas.core.home import home
from ifas.core.progress import EVENTS_ENV, emit
from ifas.training.job import FINAL, Job
from ifas.training.ray_lean import LeanTrainer, LocalTrainer
from ifas.training.ray_ranks import Ranks
from ifas.training.ray_worker import ERROR_FILE, PREEMPTED_FILE, told, work
from ifas.training.starts import Clock, fetch_log

#: Ray's settings in the driver. The poll interval gates every report: the default of 2 s would stall the steps.
DRIVER_ENV = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # A notice of preemption may leave no more than half a minute.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
    # Workers stay in this folder: an image source may hold a relative path.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
#: A single node that listens on 127.0.0.1 only, and that nobody takes away.
LOCAL_ENV = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Workers started in advance have not the environment that Ray Train asks for, and would only hold up those that do.
    "RAY_prestart_worker_first_driver": "0",
}


def fit(job: Job, began: float | None = None) -> None:
    """Trains `job`; the model is then in `job.run / FINAL`.

    A run that was killed, driver or worker, goes on from its last checkpoint. Three budgets: an error that another try
    can't mend is raised at once; workers that died are started again `max_failures` times; a preemption, of which
    the workers made a checkpoint when they were told, costs a restart of `max_preemptions`.

    Args:
        began: when this start began, seconds since the epoch.

    Raises:
        TrainingError: the workers failed or were preempted too often.
        IfasError: what a worker raised.
    """
    config = job.train
    clock = Clock(began)
    preemptions = 0
    with _cluster(config):
        clock.mark("ray")
        while True:
            _forget(job)
            try:
                _trainer(job, clock).fit()
            except TrainingFailedError as error:
                raise (_told(job) or _failed(error, config)) from error
            if left := _told(job):
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
            clock = Clock()
    if job.uri and not (job.run / FINAL).is_dir() and storage.exists(f"{job.uri}/{FINAL}.done"):
        storage.fetch(f"{job.uri}/{FINAL}", job.run / FINAL)
        fetch_log(job)


def _trainer(job: Job, clock: Clock) -> LeanTrainer:
    config = job.train
    kind = LeanTrainer if config.where == "rayjob" else LocalTrainer
    # Ray's own records; checkpoints are ours, see `checkpoint`.
    path, filesystem = (f"{job.uri}/ray", _arrow(job.uri)) if job.uri else (str(job.run.absolute()), None)
    return kind(
        work,
        train_loop_config={"job": job, "began": clock.began, "seconds": clock.seconds},
        backend_config=Ranks(),
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


def _told(job: Job) -> IfasError | None:
    if job.uri and storage.exists(f"{job.uri}/{ERROR_FILE}"):
        storage.fetch(f"{job.uri}/{ERROR_FILE}", job.run / ERROR_FILE)
    return told(job.run / ERROR_FILE)


def _preempted(job: Job) -> bool:
    return (job.run / PREEMPTED_FILE).exists() or bool(job.uri and storage.exists(f"{job.uri}/{PREEMPTED_FILE}"))


def _failed(error: TrainingFailedError, config: TrainConfig) -> TrainingError:
    causes = error.worker_failures if isinstance(error, WorkerGroupError) else {0: error}
    rank, cause = next(iter(causes.items()))
    lines = [line for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    return TrainingError(
        f"training failed after {config.max_failures} restart(s); worker {rank}: {lines[-1].strip()}",
        "the workers' logs are in Ray's session folder (/tmp/ray/session_latest/logs/train); "
        "the same command goes on from the last checkpoint",
    )


@contextmanager
def _cluster(config: TrainConfig) -> Iterator[None]:
    """A Ray of this machine alone, or the cluster that this process is a job of."""
    before = dict(os.environ)
    os.environ.update({name: os.environ.get(name, value) for name, value in DRIVER_ENV.items()})
    try:
        if config.where == "rayjob":
            ray.init(address="auto", log_to_driver=False, runtime_env={"env_vars": _worker_env(config)})
        else:
            os.environ.update({name: os.environ.get(name, value) for name, value in LOCAL_ENV.items()})
            # Workers inherit the environment of the node that is started here.
            os.environ.update(_worker_env(config))
            ray.init(
                # Not one that someone else has started here.
                address="local",
                # One more than the workers: the controller needs its own.
                num_cpus=config.workers + 1,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=128 * 2**20,
                _node_ip_address="127.0.0.1",
            )
        logging.getLogger("ray").setLevel(logging.ERROR)
        yield
    finally:
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)


def _worker_env(config: TrainConfig) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0))
    env = {
        # Idle OpenMP threads that spin starve each other where there are more threads than cores.
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": str(max(1, cores // config.workers)),
        "TOKENIZERS_PARALLELISM": "false",
        "IFAS_HOME": str(home().absolute()),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    if not config.gpus_per_worker:
        env["DS_ACCELERATOR"] = "cpu"
    for name in (EVENTS_ENV, "HF_HUB_OFFLINE"):
        if value := os.environ.get(name):
            env[name] = value
    return env
