"""From the gate's signature to the Bento, and a ledger whose end was cut off: `ifas` as people use it, one real run."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ifas.core.config import RunConfig, load
from ifas.core.errors import DataError, GateError
from ifas.core.files import read_json, write_json
from ifas.data.registry import Registry
from ifas.promotion.gates import RESULT
from ifas.promotion.policy import Policy
from ifas.promotion.statements import unverified
from ifas.steps.chain import run_chain
from ifas.steps.execute import execute
from ifas.steps.ledger import open_ledger
from tests.unit.promotion.test_statements import keys

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def waiting(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Path]:
    root = tmp_path_factory.mktemp("waiting")
    ledger = f"gate.ledger=sqlite:///{root / 'ledger.db'}"
    config = load("tiny", [f"ingest.registry={registry.path}", "ingest.dataset=toy", ledger, "approve.by_policy=false"])
    run_chain(config, "waiting", root / "artifacts")
    return config, root


@pytest.fixture
def run(waiting: tuple[RunConfig, Path], tmp_path: Path) -> tuple[RunConfig, Path, str]:
    """Configuration, artifacts and candidate of a run that waits for a person, with a ledger for one test."""
    config, root = waiting
    shutil.copyfile(root / "ledger.db", tmp_path / "ledger.db")
    gate = config.gate.model_copy(update={"ledger": f"sqlite:///{tmp_path / 'ledger.db'}"})
    folder = root / "artifacts"
    candidate = str(read_json(folder / "gate" / "candidate")["candidate"])
    return config.model_copy(update={"gate": gate}), folder, candidate


def gate_again(config: RunConfig, folder: Path, out: Path) -> str:
    places = {"dataset": "ingest", "captions": "caption", "model": "train", "evaluation": "evaluate"}
    inputs = {name: folder / step / name for name, step in places.items()}
    inputs["lineage"] = folder / "evaluate" / "lineage"
    outputs = {"candidate": out / "candidate", "lineage": out / "lineage"}
    execute("gate", config, run_id="again", inputs=inputs, outputs=outputs)
    return str(read_json(out / "candidate")["candidate"])


def ifas_in(folder: Path) -> Callable[..., str]:
    def ifas(*words: object, code: int = 0) -> str:
        command = [str(Path(sys.executable).with_name("ifas")), *map(str, words)]
        done = subprocess.run(command, env=os.environ, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return ifas


def test_a_gates_signature_goes_from_the_run_to_the_bento_and_to_a_stranger(
    run: tuple[RunConfig, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder, candidate = run
    admin, ann, gate, eve = (keys(tmp_path / name) for name in ("admin", "ann", "gate-key", "eve"))
    config = config.model_copy(
        update={"gate": config.gate.model_copy(update={"policy": None, "admin_key": str(admin[1])})}
    )
    settings, ifas = tmp_path / "config.json", ifas_in(tmp_path)
    settings.write_text(config.model_dump_json())
    policy = open_ledger(config).get(candidate).facts["policy"]
    (tmp_path / "policy.yaml").write_text(json.dumps(Policy.model_validate(policy).model_dump(mode="json")))
    register = ("product", "register", "ifas", "--policy", "policy.yaml", "--reason", "a door", "-c", settings)
    said = ifas(*register, "--reviewer", f"ann={ann[1]}", "--gate", f"cluster={gate[1]}", "--key", admin[0])
    assert "judged by cluster" in said

    approve = ("approve", candidate, "--reason", "looked at it", "--key", ann[0], "-c", settings)
    assert "no gate of product ifas (cluster) has signed" in ifas(*approve, code=6)
    monkeypatch.setenv("IFAS_GATE_KEY", str(eve[0]))
    with pytest.raises(GateError, match="is of no gate of product ifas"):
        gate_again(config, folder, tmp_path / "eve-gate")
    monkeypatch.setenv("IFAS_GATE_KEY", gate[0].read_text())
    assert gate_again(config, folder, tmp_path / "second-gate") == candidate
    monkeypatch.delenv("IFAS_GATE_KEY")
    assert "is approved" in ifas(*approve)

    ifas("package", candidate, "--out", "built", "-c", settings, "-s", f"package.key={eve[0]}")
    approval = unverified(read_json(tmp_path / "built" / "attestation.json"))["predicate"]["approval"]
    assert unverified(approval["statements"][0])["predicateType"] == RESULT
    (tmp_path / "record.json").write_text(ifas("show", candidate, "-c", settings))
    assert "signed by gate cluster" in ifas("verify", "record.json", "--key", admin[1])
    record = read_json(tmp_path / "record.json")
    record["metrics"]["slices"]["target"]["auc"]["value"] = 1.0
    write_json(tmp_path / "record.json", record)
    assert "record was changed" in ifas("verify", "record.json", "--key", admin[1], code=6)


def test_the_registry_remembers_what_was_cut_off_the_ledger(
    run: tuple[RunConfig, Path, str], tmp_path: Path, registry: Registry
) -> None:
    """A person takes an approval back; who can write to the database forgets that, and packages the model."""
    config, _, candidate = run
    settings, ifas = tmp_path / "config.json", ifas_in(tmp_path)
    settings.write_text(config.model_dump_json())
    before = registry.revisions("toy")
    ifas("approve", candidate, "--reason", "good", "-c", settings)
    assert "compared with the heads at branch ifas-ledger/" in ifas("ledger", "verify", "-c", settings)
    ifas("revoke", candidate, "--reason", "lets masks in", "-c", settings)
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.executescript(
            "DROP TRIGGER decisions_no_delete; DELETE FROM decisions WHERE to_state = 'revoked'; "
            "UPDATE candidates SET state = 'approved';"
        )
    for words in (("ledger", "verify"), ("package", candidate, "--out", "built"), ("candidates",)):
        assert "entry 3 of its decisions, which branch ifas-ledger/" in ifas(*words, "-c", settings, code=3)
    assert not (tmp_path / "built").exists()
    with pytest.raises(DataError, match="entry 3 of its decisions"):
        open_ledger(config).verify()
    assert registry.revisions("toy") == before
