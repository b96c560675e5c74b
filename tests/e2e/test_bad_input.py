"""Bad input through the command line: a clear message, a non-zero exit, nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

IFAS = str(Path(sys.executable).with_name("ifas"))


@pytest.fixture
def ifas(config, tmp_path):
    """Runs `ifas` with the tiny profile on the drawn dataset, in a folder of its own."""
    settings = tmp_path / "config.yaml"
    settings.write_text(json.dumps(config.model_dump(mode="json")))
    env = {**os.environ, "IFAS_HOME": str(tmp_path / "home")}

    def start(*arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [IFAS, *arguments],
            cwd=tmp_path,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(*arguments: str) -> subprocess.CompletedProcess:
        process = start(*arguments)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    run.start = start
    run.config = str(settings)
    run.folder = tmp_path
    return run


def test_unknown_revision(ifas):
    done = ifas("run", "-c", ifas.config, "-s", "ingest.revision=v99")
    assert done.returncode == 3
    assert "v99" in done.stderr
    assert "toy/v1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(ifas.folder.glob("runs/*/artifacts/**/dataset"))


def test_remote_that_is_down(ifas, registry, tmp_path):
    remote = Path(f"{registry.path}-remote")
    away = remote.rename(remote.with_name("away"))
    try:
        done = ifas("step", "ingest", "-c", ifas.config, "-o", f"dataset={tmp_path}/d")
    finally:
        away.rename(remote)
    assert done.returncode == 3, done.stderr
    assert str(remote) in done.stderr
    assert not (tmp_path / "d").exists()


def test_policy_with_an_unknown_metric(ifas, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text("name: mine\nrules:\n  - {id: a, metric: accuracy, slice: target, min: 0.9, reason: x}\n")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "metrics.json").write_text("{}")
    arguments = [
        word for name in ("dataset", "captions", "model", "evaluation") for word in ("-i", f"{name}={tmp_path}/x")
    ]
    done = ifas(
        "step", "gate", "-c", ifas.config, "-s", f"gate.policy={policy}", *arguments, "-o", f"candidate={tmp_path}/c"
    )
    assert done.returncode == 2, done.stderr
    assert "accuracy" in done.stderr
    assert "apcer_max" in done.stderr
    assert not (tmp_path / "c").exists()


def test_packaging_an_unapproved_candidate(ifas, tmp_path):
    from ifas.promotion.gate import Decision
    from ifas.promotion.ledger import Ledger

    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    (tmp_path / "m").mkdir()
    candidate = ledger.submit(
        product="ifas",
        run_id="r",
        evidence={"model": "1"},
        model_sha256="1",
        dataset_revision="d",
        metrics={},
        decision=Decision(passed=True, policy="p", policy_sha256="s", rules=[], notes=[]),
        facts={"artifacts": {name: str(tmp_path / "m") for name in ("model", "evaluation")}},
    )
    done = ifas("package", candidate.id, "-c", ifas.config, "--out", "bento")
    assert done.returncode == 6, done.stderr
    assert "pending" in done.stderr
    assert candidate.id in done.stderr
    assert "ifas approve" in done.stderr
    assert not (tmp_path / "bento").exists()


def test_corrupt_shard_and_missing_column(ifas, tmp_path):
    assert ifas("step", "ingest", "-c", ifas.config, "-o", f"dataset={tmp_path}/d").returncode == 0
    manifest = tmp_path / "d" / "manifest.parquet"
    kept = manifest.read_bytes()
    import pandas as pd

    frame = pd.read_parquet(manifest).drop(columns=["licence"])
    manifest.unlink()
    frame.to_parquet(manifest)
    done = ifas("step", "caption", "-c", ifas.config, "-i", f"dataset={tmp_path}/d", "-o", f"captions={tmp_path}/c")
    assert done.returncode == 3, done.stderr
    assert "licence" in done.stderr
    manifest.unlink()
    manifest.write_bytes(kept)
    shard = next((tmp_path / "d" / "shards").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.unlink()
    shard.write_bytes(data)
    done = ifas("step", "caption", "-c", ifas.config, "-i", f"dataset={tmp_path}/d", "-o", f"captions={tmp_path}/c")
    assert done.returncode == 3, done.stderr
    assert shard.name in done.stderr
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_run_killed_while_training_goes_on_where_it_stopped_and_waits_for_a_person(ifas):
    settings = ("train.steps=40", "train.checkpoint_every=2", "approve.by_policy=false")
    arguments = ("run", "-c", ifas.config, "--runner", "process", *(word for s in settings for word in ("-s", s)))
    process = ifas.start(*arguments)
    events: list[dict] = []
    deadline = time.monotonic() + 240
    while not any(e["step"] == "train" and e["kind"] == "progress" and e["done"] >= 8 for e in events):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
        found = list(ifas.folder.glob("runs/*/events.jsonl"))
        events = [json.loads(line) for f in found for line in f.read_text().splitlines() if line.endswith("}")]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not list(ifas.folder.glob("runs/*/artifacts/train/model"))

    done = ifas(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    steps = {entry["step"]: entry for entry in json.loads(done.stdout)["steps"]}
    assert steps["caption"]["reused"]
    assert steps["train"]["facts"]["resumed_from"] > 0
    assert "package" not in steps, "nothing is approved by default"

    candidate = steps["gate"]["facts"]["candidate"]
    refused = ifas("package", candidate, "-c", ifas.config)
    assert refused.returncode == 6
    assert "pending" in refused.stderr
    assert ifas("approve", candidate, "--reason", "read the report", "-c", ifas.config).returncode == 0
    thesis = ifas.folder / "mine" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    foreign = ifas("package", candidate, "-c", ifas.config, "--out", "mine")
    assert foreign.returncode == 3
    assert "thesis.tex" in foreign.stderr
    assert thesis.read_text() == "years of work"
    thesis.unlink()
    packaged = ifas("package", candidate, "-c", ifas.config, "--out", "mine")
    assert packaged.returncode == 0, packaged.stderr
    assert (ifas.folder / "mine" / "MODEL_CARD.md").read_text().count("read the report") == 1
    assert ifas("reject", candidate, "--reason", "too late", "-c", ifas.config).returncode == 6
