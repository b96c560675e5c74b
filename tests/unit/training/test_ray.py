"""Ray Train for real: two workers equal one, and kills of a worker and of the driver change nothing."""

import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
import toy_training
from toy_training import ToyImages, config, job, manifest

from ifas.core.errors import ConfigError
from ifas.training.curve import CURVE_FILE, left_plateau, read
from ifas.training.driver import train
from ifas.training.loop import run
from ifas.training.record import TRAINING_FILE, TrainingRecord

SETTINGS = ("train.workers=2", "train.zero_stage=2", "train.steps=9", "train.checkpoint_every=3", "train.batch=3")


def call(tmp_path: Path, out: str, images: ToyImages) -> TrainingRecord:
    """Trains with two workers, its pictures' class going along by value."""
    ray.cloudpickle.register_pickle_by_value(toy_training)
    made = config(*SETTINGS)
    return train(
        made.model, made.train, manifest(), images, work=tmp_path / "work", out=tmp_path / out, run_name="kfp-run"
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingRecord]:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    return folder / "model", call(folder, "model", ToyImages(sockets=folder / "sockets.json"))


@pytest.mark.slow
def test_two_workers_equal_one(whole: tuple[Path, TrainingRecord], tmp_path: Path, alone: None) -> None:
    model, record = whole
    one = job(tmp_path / "one", *SETTINGS, "train.workers=1", "train.batch=6")
    run(one, lambda *_: None)
    two_losses, one_losses = (
        [(line["judgment"], line["interpretation"]) for line in read(path / CURVE_FILE)] for path in (model, one.run)
    )
    assert len(two_losses) == 9
    for two, single in zip(two_losses, one_losses, strict=True):
        assert two == pytest.approx(single, rel=1e-4)
    assert record == TrainingRecord(**json.loads((model / TRAINING_FILE).read_text()))
    assert (record.workers, record.restarts, record.resumed_from, record.starts) == (2, 0, None, [0])
    assert record.batch == 6
    assert list(record.start_up) == ["Ray", "process group", "model", "DeepSpeed", "levels", "first step"]
    assert record.start_seconds == pytest.approx(sum(record.start_up.values()), abs=2)
    assert record.loader_samples_per_second > 0 < record.demand_samples_per_second
    assert set(record.species) == {"live", "print", "replay"}
    assert record.judgment == two_losses[-1][0]
    assert record.left_plateau == left_plateau(read(model / CURVE_FILE), 1 / 3)
    assert not list((model.parent / "work").iterdir()), "checkpoints are removed once the model is written"


@pytest.mark.slow
def test_features_are_computed_while_ray_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: None) -> None:
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv("IFAS_EVENTS", str(events))
    ray.cloudpickle.register_pickle_by_value(toy_training)
    settings = (*SETTINGS, "model.vision.tune=frozen", "train.versions=2")
    made = config(*settings, "train.features=true")
    record = train(
        made.model, made.train, manifest(), ToyImages(), work=tmp_path / "work", out=tmp_path / "m", run_name="r"
    )
    assert list(record.start_up)[-3:] == ["features", "levels", "first step"]
    said = [json.loads(line) for line in events.read_text().splitlines()]
    seen = [event for event in said if event.get("unit") == "images seen by the tower"]
    assert (seen[-1]["done"], seen[-1]["total"]) == (36, 36)
    assert len([file for file in (tmp_path / "features").rglob("*") if file.is_file()]) == 36
    plain = job(tmp_path / "plain", *settings, "train.workers=1", "train.batch=6")
    run(plain, lambda *_: None)
    losses = [[line["loss"] for line in read(folder / CURVE_FILE)] for folder in (tmp_path / "m", plain.run)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_nothing_of_a_training_listens_where_other_machines_reach_it(whole: tuple[Path, TrainingRecord]) -> None:
    model, _ = whole
    listening = json.loads((model.parent / "sockets.json").read_text())
    # Of each worker: Ray's own, gloo's, and of rank 0 the meeting point of all ranks.
    assert sum(name.startswith("ray::") for name, _ in listening) >= 5
    for name, address in listening:
        ip = ipaddress.ip_address(address)
        assert (getattr(ip, "ipv4_mapped", None) or ip).is_loopback, (name, address)


@pytest.mark.slow
def test_killed_driver_then_killed_worker_equal_the_uninterrupted_run(
    whole: tuple[Path, TrainingRecord], tmp_path: Path
) -> None:
    script = tmp_path / "driver.py"
    script.write_text(
        "import sys, time\n"
        f"sys.path[:0] = [{str(Path(__file__).parent)!r}]\n"
        "from pathlib import Path\n"
        "from test_ray import call, ToyImages\n"
        f"call(Path({str(tmp_path)!r}), 'model', ToyImages(wait={str(tmp_path / 'go')!r}))\n"
    )
    # Reading is slow until it is killed, so the kill comes in the middle: after the checkpoint of the third step.
    process = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 600
    while not list((tmp_path / "work").glob("*/checkpoint_00000003/progress.json")):
        assert process.poll() is None, "the driver ended by itself"
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(3)  # its workers follow it
    (tmp_path / "go").touch()
    assert not (tmp_path / "model").exists()

    # The same call again, and this time a worker is killed on its way.
    record = call(tmp_path, "model", ToyImages(flag=tmp_path / "killed", kill_at=11, wait=str(tmp_path / "go")))
    assert (tmp_path / "killed").exists(), "no worker was killed"
    assert record.starts[:2] == [0, 3]
    assert record.restarts == len(record.starts) - 1 >= 2
    assert record.resumed_from == record.starts[-1] >= 3
    assert 0 < record.lost_steps <= 3 * record.restarts

    model, _ = whole
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    losses = [
        [(line["step"], line["judgment"], line["interpretation"]) for line in read(folder / CURVE_FILE)]
        for folder in (model, tmp_path / "model")
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_drained_machine_is_left_with_a_checkpoint_and_no_lost_step(
    whole: tuple[Path, TrainingRecord], tmp_path: Path
) -> None:
    """Two machines (raylets); the one that trains is drained as a cloud does it, and the other takes over."""
    script = tmp_path / "drained.py"
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = [{str(Path(__file__).parent)!r}]\n"
        "from pathlib import Path\n"
        "import drained\n"
        f"drained.main(Path({str(tmp_path)!r}))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    record = TrainingRecord(**json.loads((tmp_path / "model" / TRAINING_FILE).read_text()))
    assert record.restarts == 1
    assert record.lost_steps == 0
    assert 0 < record.starts[1] < 9
    assert "preempted (1 so far)" in done.stderr
    model, _ = whole
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.language.source=./nowhere", "nowhere"),
        ("train.storage=nope://bucket", "nope"),
        ("train.species_weights={mannequin: 2}", "mannequin"),
    ],
)
def test_what_is_missing_is_told_before_ray_starts(tmp_path: Path, override: str, said: str) -> None:
    made = config(override)
    with pytest.raises(ConfigError, match=said):
        train(made.model, made.train, manifest(), ToyImages(), work=tmp_path / "w", out=tmp_path / "m", run_name="r")
    assert not ray.is_initialized()
    assert not (tmp_path / "m").exists()
