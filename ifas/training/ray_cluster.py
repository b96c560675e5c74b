"""The Ray that a training runs on, and the environment that it and the workers need."""

from __future__ import annotations

import os
import socket
from contextlib import AbstractContextManager

from ifas.compute.connection import connected
from ifas.core.config import TrainConfig
from ifas.core.home import home
from ifas.core.progress import EVENTS_ENV

#: Ray's settings in the driver. Reports wait for the next poll: the default interval of 2 s would delay the steps.
SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # After a notice of preemption, there may be only half a minute left.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
    # Workers stay in this folder: an image source may hold a relative path.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
#: Further settings for a local Ray, whose machine is never taken away.
LOCAL_SETTINGS = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}


def cluster(config: TrainConfig) -> AbstractContextManager[None]:
    """Inside the block, this process is connected to the Ray that `config` names."""
    return connected(
        local=config.where == "local",
        cpus=config.workers,
        object_store=128 * 2**20,
        settings=SETTINGS | (LOCAL_SETTINGS if config.where == "local" else {}),
        worker_env=_worker_env(config),
    )


def _worker_env(config: TrainConfig) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0))
    env = {
        # Idle OpenMP threads that spin starve each other where there are more threads than cores.
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": str(max(1, cores // config.workers)),
        "TOKENIZERS_PARALLELISM": "false",
        "IFAS_HOME": str(home().absolute()),
    }
    if config.where == "local":
        # Workers of a local Ray meet at the loopback address.
        env["GLOO_SOCKET_IFNAME"] = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    if not config.gpus_per_worker:
        env["DS_ACCELERATOR"] = "cpu"
    for name in (EVENTS_ENV, "HF_HUB_OFFLINE"):
        if value := os.environ.get(name):
            env[name] = value
    return env
