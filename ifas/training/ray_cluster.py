"""The Ray that a training runs on, and the environment that it and the workers need."""

from __future__ import annotations

import os
import socket
from contextlib import AbstractContextManager

from ifas.compute.connection import connected, of_cluster
from ifas.core.config import TrainConfig
from ifas.core.home import home

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
    """Inside the block, this process is connected to the Ray that trains."""
    return connected(
        cpus=config.workers,
        object_store=128 * 2**20,
        settings=SETTINGS | ({} if of_cluster() else LOCAL_SETTINGS),
        worker_env=_worker_env(config),
    )


def _worker_env(config: TrainConfig) -> dict[str, str]:
    env = {
        # Idle OpenMP threads that spin starve each other where there are more threads than cores.
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "IFAS_HOME": str(home().absolute()),
    }
    if not of_cluster():
        # Workers of a local Ray meet at the loopback address.
        env["GLOO_SOCKET_IFNAME"] = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    if not config.gpus_per_worker:
        env["DS_ACCELERATOR"] = "cpu"
    if offline := os.environ.get("HF_HUB_OFFLINE"):
        env["HF_HUB_OFFLINE"] = offline
    return env
