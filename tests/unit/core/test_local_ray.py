"""A Ray of one machine: really started, really looked at."""

import ipaddress
import json
import os
import sys
from pathlib import Path

import psutil
import pytest
import ray
import ray._private.node
from ray.train import RunConfig, ScalingConfig

from ifas.core.local_ray import local_ray
from ifas.training.ray_lean import LocalTrainer

MEMORY = 80 * 2**20


def family() -> list[psutil.Process]:
    """This process and those it has started."""
    return [psutil.Process(), *psutil.Process().children(recursive=True)]


def is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def test_only_this_machine_reaches_it_and_its_settings_go_with_it() -> None:
    before, seen = dict(os.environ), []
    with local_ray(cpus=1, object_store=MEMORY, meanwhile=lambda: seen.append(ray.is_initialized())):
        assert ray.get(ray.remote(lambda: os.getpid()).remote()) != os.getpid()
        listening = [
            connection.laddr.ip
            for process in family()
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert len(listening) > 3
        assert all(map(is_loopback, listening)), listening
    assert seen == [False], "once, before Ray was up"
    assert not ray.is_initialized()
    assert dict(os.environ) == before


def test_a_start_that_fails_leaves_ray_as_it_was() -> None:
    node = ray._private.node.Node
    with pytest.raises(ValueError, match="object store"), local_ray(cpus=1, object_store=1):
        pass
    assert ray._private.node.Node is node


def processes() -> None:
    """What each worker of the training below does: tells which processes of Ray its node has."""
    raylet = psutil.Process().parent()
    assert raylet is not None
    assert raylet.name() == "raylet"
    # But for spare ones.
    titles = [child.name() for child in raylet.children() if child.name() not in ("python", "ray::IDLE")]
    scripts = [word for child in raylet.parent().children() for word in child.cmdline() if word.endswith(".py")]  # type: ignore[union-attr]
    Path(os.environ["SEEN"]).write_text(json.dumps([sorted(titles), scripts]))


def test_a_training_has_no_process_that_nobody_asks_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    with local_ray(cpus=4, object_store=MEMORY):
        LocalTrainer(
            processes,
            scaling_config=ScalingConfig(num_workers=2),
            run_config=RunConfig(name="toy", storage_path=str(tmp_path)),
        ).fit()
    titles, scripts = json.loads((tmp_path / "seen").read_text())
    agents = ["ray::DashboardAgent", "ray::RuntimeEnvAgent"]
    training = ["ray::RayTrainWorker", "ray::RayTrainWorker", "ray::SynchronizationActor", "ray::_Controller.run"]
    assert titles == sorted([*agents, *training])
    assert scripts == [], "no dashboard, no monitors beside the raylet"
