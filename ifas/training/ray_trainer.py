"""Ray Train around the loop: starts the workers, and starts them again from the last checkpoint when one dies."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from ifas.core.config import TrainConfig
from ifas.core.errors import TrainingError
from ifas.core.home import home
from ifas.core.progress import EVENTS_ENV
from ifas.training.engine import backend
from ifas.training.job import Job
from ifas.training.ray_worker import ERROR_FILE, told, work

#: Ray's settings in the driver. The poll interval gates every report: the default of 2 s would stall the steps.
DRIVER_ENV = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Workers stay in this folder: an image source may hold a relative path.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
#: A single node that listens on 127.0.0.1 only, and that nobody takes away.
LOCAL_ENV = {"RAY_AUTH_MODE": "disabled", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}


def fit(job: Job) -> None:
    """Trains `job`; the model is then in `job.run / loop.FINAL`.

    A run that was killed, driver or worker, goes on from its last checkpoint: Ray finds it by the name of `job.run`.

    Raises:
        TrainingError: the workers failed more often than `max_failures`.
        IfasError: what a worker raised.
    """
    config = job.train
    (job.run / ERROR_FILE).unlink(missing_ok=True)
    with _cluster(config):
        trainer = TorchTrainer(
            work,
            train_loop_config={"job": job},
            torch_config=TorchConfig(backend=backend(config)),
            scaling_config=ScalingConfig(
                num_workers=config.workers,
                use_gpu=config.gpus_per_worker > 0,
                resources_per_worker={"CPU": 1, **({"GPU": config.gpus_per_worker} if config.gpus_per_worker else {})},
            ),
            run_config=RunConfig(
                name=job.run.name,
                storage_path=str(job.run.parent.absolute()),
                failure_config=FailureConfig(max_failures=config.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise (told(job.run / ERROR_FILE) or _failed(error, config)) from error
    if left := told(job.run / ERROR_FILE):
        raise left


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
