"""The Ray that a training runs on: one of this machine alone, or the cluster that this process is a job of."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from ifas.core.config import TrainConfig
from ifas.core.home import home
from ifas.core.local_ray import local_ray
from ifas.core.progress import EVENTS_ENV

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
#: And on this machine alone, which nobody takes away.
LOCAL_ENV = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Ray Train's own setting for its controller, which here has the environment of the node.
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
}


@contextmanager
def cluster(config: TrainConfig, meanwhile: Callable[[], object]) -> Iterator[None]:
    """Within, this process is connected to the Ray that `config` wants, with the environment that Ray Train needs.

    Args:
        meanwhile: called while a Ray of this machine starts, which takes seconds that this process would only wait.
    """
    before = dict(os.environ)
    settings = DRIVER_ENV if config.where == "rayjob" else {**DRIVER_ENV, **LOCAL_ENV}
    os.environ.update({name: os.environ.get(name, value) for name, value in settings.items()})
    try:
        with _connected(config, meanwhile):
            logging.getLogger("ray").setLevel(logging.ERROR)
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _connected(config: TrainConfig, meanwhile: Callable[[], object]) -> Iterator[None]:
    if config.where == "local":
        os.environ.update(_worker_env(config))
        # As many processes are started in advance: the controller's and that by which workers wait for each other, too.
        with local_ray(cpus=config.workers + 2, object_store=128 * 2**20, meanwhile=meanwhile):
            yield
        return
    try:
        ray.init(address="auto", log_to_driver=False, runtime_env={"env_vars": _worker_env(config)})
        yield
    finally:
        ray.shutdown()


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
