"""Captioning and training as jobs of a Ray cluster whose machines share nothing but a real object store."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from ifas.core import storage
from ifas.core.config import load
from ifas.core.errors import ConfigError, DataError
from ifas.core.files import read_json, sha256_tree
from ifas.core.manifest import DATASET_FILE
from ifas.data.pack import pack
from ifas.steps.contract import STEPS
from ifas.steps.execute import execute
from ifas.training.record import TRAINING_FILE
from tests import ray_nodes, toy_dataset
from tests.ray_nodes import Cluster, cluster
from tests.servers import Endpoint, s3_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(ray_nodes.refused()), reason=ray_nodes.refused() or "there can be such machines"),
]

TRAIN = ("train.workers=2", "train.zero_stage=1", "train.steps=40", "train.checkpoint_every=10", "train.batch=2")
#: Of each machine: more than this one may have.
CPUS = 3


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An S3 server of this file alone, which may stop it."""
    with s3_server(tmp_path_factory.mktemp("store")) as server, pytest.MonkeyPatch.context() as patched:
        for name, value in {**server.env, "AWS_ENDPOINT_URL": server.url}.items():
            patched.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def machines(store: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head without CPUs and two machines."""
    env = {**store.env, "AWS_ENDPOINT_URL": store.url}
    with cluster(tmp_path_factory.mktemp("nodes"), env, nodes=2, cpus=CPUS) as made:
        yield made


class Staged:
    """A dataset and what was made of it, in a store, with hashes; and steps that read them as jobs of a cluster."""

    def __init__(self, store: Endpoint, folder: Path) -> None:
        self.folder, self.prefix = folder, f"s3://{store.bucket}/staged"
        self.paths = {name: folder / name for name in ("dataset", "captions", "validation")}
        dataset, config = self.paths["dataset"], load("tiny")
        pack("folder", toy_dataset.make(folder / "raw"), dataset, name="toy", shard_bytes=150_000)
        before: dict[str, Path] = {"dataset": dataset}
        for step, output in (("caption", "captions"), ("validate", "validation")):
            made = {output: self.paths[output], "lineage": folder / f"{step}.json"}
            execute(step, config, run_id="r", inputs=before, outputs=made)
            before = {**before, **made}
        for name, path in self.paths.items():
            storage.store(path, f"{self.prefix}/{name}")

    def command(self, step: str, *settings: str, out: str) -> list[str]:
        """What a RayJob runs. The file of the configuration is in the image there; here it goes by overrides."""
        ifas = str(Path(sys.executable).with_name("ifas"))
        words = [ifas, "step", step, "--config", "tiny", "--run-id", "r", "--no-cache"]
        for item in settings:
            words += ["--set", item]
        for name in STEPS[step].inputs:
            words += ["--input", f"{name}={self.prefix}/{name}"]
            words += ["--input-sha256", f"{name}={sha256_tree(self.paths[name])}"]
        return [*words, "--output", f"{STEPS[step].outputs[0]}={self.prefix}/{out}"]


class Running:
    """A step as a job on the head of a cluster."""

    def __init__(self, machines: Cluster, staged: Staged, step: str, *settings: str, out: str) -> None:
        self.log, self.uri, self.cluster = staged.folder / f"{out}.log", f"{staged.prefix}/{out}", machines
        self.log.touch()
        command = staged.command(step, *settings, out=out)
        self.process = machines.head.start(command, self.log, IFAS_EVENTS="/dev/stdout")

    def events(self) -> list[dict[str, Any]]:
        """What it has told so far."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"t":')]

    def notes(self) -> str:
        return "\n".join(event["text"] for event in self.events() if event["kind"] == "note")

    def until(self, what: Callable[[], object], seconds: float = 120) -> None:
        """Waits for something to be true while the step runs."""
        end = time.monotonic() + seconds
        while not what():
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < end, self.log.read_text()[-4000:]
            time.sleep(0.1)

    def checkpoint(self, step: int) -> None:
        """Waits for a checkpoint in the store."""
        self.until(lambda: list(self._named(f"checkpoint_{step:08d}")))

    def _named(self, name: str) -> list[str]:
        return [one for one in storage.sizes(f"{self.uri}.work") if f"{name}/progress.json" in one]

    def parts(self) -> int:
        """Shards that are captioned and in the store."""
        return len([one for one in storage.sizes(f"{self.uri}.work") if "/captions/" in one])

    def ended(self, seconds: float = 180) -> int:
        return self.process.wait(timeout=seconds)

    def succeeded(self, into: Path) -> Path:
        """Its output, once it has succeeded and left nothing else in the store or at work."""
        assert self.ended() == 0, self.log.read_text()[-6000:]
        assert storage.sizes(f"{self.uri}.work") == {}
        self.all_end()
        return storage.fetch(self.uri, into)

    def kill(self) -> None:
        """Kills the driver, and waits until its workers have followed it."""
        for driver in psutil.Process(self.process.pid).children():
            driver.kill()
        self.process.wait()
        self.all_end()

    def workers(self) -> list[psutil.Process]:
        """Processes of ranks and of captioning actors, on all machines."""
        names = ("ray::RayTrainWorker", "ray::MapWorker")
        return [one for node in self.cluster.nodes for name in names for one in node.workers(name)]

    def all_end(self, seconds: float = 30) -> None:
        """All its workers are gone in that time."""
        end = time.monotonic() + seconds
        while left := self.workers():
            assert time.monotonic() < end, left
            time.sleep(0.2)


@pytest.fixture(scope="module")
def staged(store: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Staged:
    return Staged(store, tmp_path_factory.mktemp("staged"))


@pytest.fixture(scope="module")
def undisturbed(machines: Cluster, staged: Staged) -> tuple[Running, Path]:
    """A training in which nothing happened, and its model."""
    training = Running(machines, staged, "train", *TRAIN, out="undisturbed")
    training.checkpoint(10)
    for node in machines.nodes[1:]:
        assert len(node.workers("ray::RayTrainWorker")) == 1, "each machine has its rank"
    return training, training.succeeded(staged.folder / "model")


def record(model: Path) -> dict[str, Any]:
    made: dict[str, Any] = read_json(model / TRAINING_FILE)
    return made


def equal(model: Path, other: Path) -> bool:
    return (model / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_captioning(machines: Cluster, staged: Staged, tmp_path: Path) -> None:
    captioning = Running(machines, staged, "caption", "caption.actors=2", out="captions-2")
    made = captioning.succeeded(tmp_path / "captions")
    assert sha256_tree(made) == sha256_tree(staged.paths["captions"])
    assert any(event["kind"] == "progress" and event["step"] == "caption" for event in captioning.events())


def test_training(undisturbed: tuple[Running, Path], machines: Cluster, staged: Staged) -> None:
    training, model = undisturbed
    found = record(model)
    assert (found["workers"], found["starts"], found["threads"]) == (2, [0], CPUS)
    assert any(event["kind"] == "progress" and event["unit"] == "steps" for event in training.events())
    shards = read_json(staged.paths["dataset"] / DATASET_FILE)["shards"]
    for node in machines.nodes[1:]:
        fetched = node.run("ls", f"{machines.disk}/ifas/fetched/shards").split()
        assert len([name for name in fetched if not name.endswith(".lock")]) in range(1, len(shards) + 1)
    told = [line for line in training.notes().splitlines() if line.startswith("shard ")]
    # Those that the captioning had fetched there are not fetched again.
    assert 1 <= len(told) <= 2 * len(shards), "each is told once on a machine"


def test_a_killed_driver_a_killed_worker_and_a_store_away_for_a_minute_change_nothing(
    undisturbed: tuple[Running, Path], machines: Cluster, staged: Staged, store: Endpoint, tmp_path: Path
) -> None:
    first = Running(machines, staged, "train", *TRAIN, out="disturbed")
    first.checkpoint(10)
    first.kill()
    # As the pods of a new cluster: nothing of the old ones' disks is there.
    for node in machines.nodes:
        node.run("rm", "-rf", f"{machines.disk}/ifas")
    training = Running(machines, staged, "train", *TRAIN, out="disturbed")
    training.until(lambda: "continues after step" in training.notes())
    machines.nodes[1].workers("ray::RayTrainWorker")[0].kill()
    training.checkpoint(20)
    store.stop()
    try:
        time.sleep(60)
        assert training.process.poll() is None, training.log.read_text()[-4000:]
    finally:
        store.start()
    model = training.succeeded(tmp_path / "model")
    assert "restart 1 of 2" in training.notes()
    assert "does not answer" in training.notes()
    assert "the store is back" in training.notes()
    assert record(model)["starts"][0] == 0
    assert min(record(model)["starts"][1:]) >= 10, "from the last checkpoint, not from the start"
    assert equal(model, undisturbed[1])


def test_a_machine_that_is_gone_is_replaced_by_the_others(
    undisturbed: tuple[Running, Path], machines: Cluster, staged: Staged, tmp_path: Path
) -> None:
    training = Running(machines, staged, "train", *TRAIN, out="one-machine-less")
    training.checkpoint(10)
    machines.nodes.pop().kill()
    try:
        model = training.succeeded(tmp_path / "model")
    finally:
        machines.add(CPUS)
        machines.wait()
    assert record(model)["starts"][1] >= 10
    # Two ranks on one machine have fewer threads each, which add up in another order.
    for name, weight in load_file(undisturbed[1] / "model.safetensors").items():
        torch.testing.assert_close(load_file(model / "model.safetensors")[name], weight, rtol=0, atol=1e-3)


def test_captioning_survives_a_killed_actor_and_a_lost_machine(
    machines: Cluster, staged: Staged, tmp_path: Path
) -> None:
    lost = machines.add(CPUS)
    machines.wait()
    captioning = Running(machines, staged, "caption", "caption.actors=3", out="captions-3")
    captioning.until(lambda: captioning.parts() >= 1)
    next(iter(captioning.workers())).kill()
    captioning.until(lambda: captioning.parts() >= 2)
    machines.nodes.remove(lost)
    lost.kill()
    made = captioning.succeeded(tmp_path / "captions")
    assert sha256_tree(made) == sha256_tree(staged.paths["captions"])


def test_captioning_waits_for_a_store_that_is_away_for_a_minute(
    machines: Cluster, staged: Staged, store: Endpoint, tmp_path: Path
) -> None:
    captioning = Running(machines, staged, "caption", "caption.actors=2", out="captions-away")
    captioning.until(lambda: captioning.parts() >= 1)
    store.stop()
    try:
        time.sleep(60)
        assert captioning.process.poll() is None, captioning.log.read_text()[-4000:]
    finally:
        store.start()
    made = captioning.succeeded(tmp_path / "captions")
    assert "the store is back" in captioning.notes()
    assert sha256_tree(made) == sha256_tree(staged.paths["captions"])


def test_without_a_store_nothing_is_started(machines: Cluster, staged: Staged) -> None:
    command = staged.command("train", *TRAIN, out="nowhere")
    here = [word.replace(f"model={staged.prefix}/", f"model={machines.disk}/") for word in command]
    log = staged.folder / "here.log"
    assert machines.head.start(here, log).wait(timeout=120) == ConfigError.exit_code
    assert "train.storage is empty" in log.read_text()


def test_the_second_stage_goes_on_from_a_model_that_only_the_head_has(
    machines: Cluster, staged: Staged, tmp_path: Path
) -> None:
    few = ("train.steps=4", "align.enabled=true", "align.steps=2", "align.images=8", "align.samples=2")
    small = ("align.dev_images=8", "align.bootstrap=20", "align.temperature=3")
    training = Running(machines, staged, "train", *TRAIN, *few, *small, out="aligned")
    model = training.succeeded(tmp_path / "model")
    found = read_json(model / "alignment.json")
    assert found["turns"]["count"] > 0, found
    assert found["training"]["workers"] == 2


@pytest.mark.parametrize(("step", "settings"), [("caption", ("caption.actors=2",)), ("train", TRAIN)])
def test_a_corrupt_input_at_one_machine_ends_all_workers(
    step: str, settings: tuple[str, ...], machines: Cluster, staged: Staged
) -> None:
    # The last test of this file: the copies that nobody reads stay damaged.
    fetched = f"{machines.disk}/ifas/fetched/shards"
    machines.nodes[2].run("sh", "-c", f"for one in {fetched}/*; do [ -s $one ] && echo damaged > $one; done")
    running = Running(machines, staged, step, *settings, out=f"corrupt-{step}")
    running.until(lambda: "is corrupt" in running.log.read_text() or running.process.poll() is not None)
    # The driver and then the ranks, each in its time: a busy machine may need most of it.
    assert running.ended(30) == DataError.exit_code, running.log.read_text()[-4000:]
    running.all_end(30)
    failed = next(event for event in running.events() if event["kind"] == "failed")
    assert "is corrupt" in failed["what"]
    assert f"{staged.prefix}/dataset" in failed["what"]
    assert not storage.sizes(running.uri), "there is no output"
