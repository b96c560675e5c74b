"""A training on a Ray cluster of two machines, the one in use being drained on the way. Run in a process of its own."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import ray
import toy_training
from ray.cluster_utils import Cluster
from toy_training import ToyImages, config, manifest

from ifas.training.driver import train
from ifas.training.ray_cluster import DRIVER_ENV

SETTINGS = ("train.workers=2", "train.zero_stage=2", "train.steps=9", "train.checkpoint_every=3", "train.batch=3")


def main(folder: Path) -> None:
    """Trains into `folder`/model."""
    os.environ.update(DRIVER_ENV, RAY_AUTH_MODE="disabled", DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")
    options = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    # The controller fits on the head, the two workers on one of the machines only.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **options})
    machines = [cluster.add_node(num_cpus=2, **options) for _ in range(2)]
    cluster.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = cluster.address
    threading.Thread(target=drain, args=(cluster, machines, folder), daemon=True).start()
    ray.cloudpickle.register_pickle_by_value(toy_training)
    made = config(*SETTINGS, "train.where=rayjob", "train.max_failures=0", "train.max_preemptions=1")
    images = ToyImages(wait=str(folder / "go"))
    try:
        train(made.model, made.train, manifest(), images, work=folder / "work", out=folder / "model", run_name="r")
    finally:
        # Else the next `ray.init` on this machine would look for it.
        cluster.shutdown()


def drain(cluster: Cluster, machines: list[object], folder: Path) -> None:
    """Once a checkpoint is there, tells Ray that the machine of the workers will be taken away in two minutes."""
    from ray._private.state import available_resources_per_node
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    while not list((folder / "work").glob("*/checkpoint_00000001/progress.json")):
        time.sleep(0.2)
    ids = [machine.node_id for machine in machines]  # type: ignore[attr-defined]
    used = next(i for i in ids if available_resources_per_node()[i].get("CPU", 0) < 2)
    accepted, why = GcsClient(address=cluster.address).drain_node(
        used,
        autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
        "spot",
        int(1000 * (time.time() + 120)),
    )
    assert accepted, why
    time.sleep(3)  # until the watcher has told the workers
    (folder / "go").touch()
