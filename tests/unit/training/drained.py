"""A training on a Ray cluster of two machines, the one in use being drained on the way. Run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import ray
import toy_training
from ray.cluster_utils import Cluster
from toy_training import ToyImages, config, manifest

from ifas.training.driver import train
from ifas.training.ray_cluster import SETTINGS as RAY_SETTINGS

SETTINGS = ("train.workers=2", "train.zero_stage=2", "train.steps=9", "train.checkpoint_every=3", "train.batch=3")


@dataclass(frozen=True)
class Images(ToyImages):
    """Whoever reads leaves the ID of its machine in `node`."""

    node: Path = Path()

    def read(self, shard: str, row: int) -> bytes:
        if not self.node.exists():
            self.node.write_text(ray.get_runtime_context().get_node_id())
        return super().read(shard, row)


def main(folder: Path) -> None:
    """Trains into `folder`/model."""
    os.environ.update(RAY_SETTINGS, RAY_AUTH_MODE="disabled", DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")
    options = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    # The controller fits on the head, the two workers on one of the machines only.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **options})
    for _ in range(2):
        cluster.add_node(num_cpus=2, **options)
    cluster.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = cluster.address
    threading.Thread(target=drain, args=(cluster, folder), daemon=True).start()
    for module in (toy_training, sys.modules[__name__]):
        ray.cloudpickle.register_pickle_by_value(module)
    # A folder that is mounted on all machines stands in for the store.
    settings = (*SETTINGS, f"train.storage={folder / 'mounted'}")
    made = config(*settings, "train.max_failures=0", "train.max_preemptions=1")
    images = Images(wait=str(folder / "go"), node=folder / "node")
    try:
        train(made.model, made.train, manifest(), images, work=folder / "work", out=folder / "model", run_name="r")
    finally:
        # Else the next `ray.init` on this machine would look for it.
        cluster.shutdown()


def drain(cluster: Cluster, folder: Path) -> None:
    """Once a checkpoint is there, tells Ray that the machine of the workers will be taken away in two minutes."""
    while not list((folder / "mounted").glob("*/checkpoint_00000001/progress.json")):
        time.sleep(0.2)
    # What a cloud's agent calls.
    command = [
        *(Path(sys.executable).with_name("ray"), "drain-node", "--address", cluster.address),
        *("--node-id", (folder / "node").read_text(), "--deadline-remaining-seconds", "120"),
        *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"),
    ]
    subprocess.run(command, check=True)
    time.sleep(3)  # until the watcher has told the workers
    (folder / "go").touch()
