"""Who wants to ship a model that nobody approved, with a text editor and write access to files and ledger.

Each attack is played on a run that a person has to decide about; the same commands, without the attack, build a Bento.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ifas.core.config import RunConfig, load
from ifas.core.errors import ConfigError, DataError, GateError, NotApproved
from ifas.core.files import read_json, sha256_tree, write_json
from ifas.core.records import Lineage
from ifas.data.registry import Registry
from ifas.promotion.ledger import Ledger
from ifas.promotion.people import People
from ifas.promotion.policy import load_policy
from ifas.promotion.products import Products
from ifas.steps.chain import run_chain
from ifas.steps.execute import execute
from ifas.steps.release import package_candidate
from tests.unit.promotion.test_statements import keys

PEM, INFO = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
#: Who decides about the product in these tests; nobody here has the private key.
ANN = People(reviewers={"ann": [Ed25519PrivateKey.generate().public_key().public_bytes(PEM, INFO).decode()]})
#: Refuses every model, and a model that is worse than the champion.
NO_LOSS = {"id": "no-loss", "metric": "hter", "slice": "target", "max_increase": 0.0, "missing_champion": "pass"}
PERFECT = {"id": "perfect", "metric": "auc", "slice": "target", "min": 1.0, "bound": "interval"}
HARD = {"name": "hard", "rules": [{**NO_LOSS, "reason": "r"}, {**PERFECT, "reason": "r"}]}


@dataclass(frozen=True)
class Run:
    """A run whose candidate waits for a person."""

    config: RunConfig
    folder: Path
    candidate: str

    def at(self, step: str, name: str) -> Path:
        return self.folder / step / name

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.config.gate.ledger)

    def package(self, out: Path, **files: Path) -> Any:
        """`ifas step package`."""
        inputs = {
            "model": self.at("train", "model"),
            "evaluation": self.at("evaluate", "evaluation"),
            "approval": self.at("approve", "approval"),
            "lineage": self.at("approve", "lineage"),
            **files,
        }
        outputs = {"bento": out, "lineage": out.with_name("after.json")}
        return execute("package", self.config, run_id="attack", inputs=inputs, outputs=outputs)

    def gate(self, out: Path, policy: Path, **files: Path) -> dict[str, Any]:
        """`ifas step gate`; what it says of the candidate."""
        inputs = {
            "dataset": self.at("ingest", "dataset"),
            "captions": self.at("caption", "captions"),
            "model": self.at("train", "model"),
            "evaluation": self.at("evaluate", "evaluation"),
            "lineage": self.at("evaluate", "lineage"),
            **files,
        }
        config = self.config.model_copy(update={"gate": self.config.gate.model_copy(update={"policy": str(policy)})})
        outputs = {"candidate": out / "candidate", "lineage": out / "lineage"}
        execute("gate", config, run_id="attack", inputs=inputs, outputs=outputs)
        return dict(read_json(out / "candidate"))


@pytest.fixture(scope="module")
def waiting(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("waiting")
    ledger = f"sqlite:///{root / 'ledger.db'}"
    config = load(
        "tiny",
        [f"ingest.registry={registry.path}", "ingest.dataset=toy", f"gate.ledger={ledger}", "approve.by_policy=false"],
    )
    run_chain(config, "waiting", root / "artifacts")
    return Run(config, root / "artifacts", read_json(root / "artifacts" / "gate" / "candidate")["candidate"])


@pytest.fixture
def run(waiting: Run, tmp_path: Path) -> Run:
    """A copy of the run and of its ledger, for one attack."""
    shutil.copytree(waiting.folder, tmp_path / "artifacts")
    shutil.copyfile(waiting.folder.parent / "ledger.db", tmp_path / "ledger.db")
    gate = waiting.config.gate.model_copy(update={"ledger": f"sqlite:///{tmp_path / 'ledger.db'}"})
    return Run(waiting.config.model_copy(update={"gate": gate}), tmp_path / "artifacts", waiting.candidate)


def sealed_again(run: Run, step: str) -> None:
    """Makes the lineage of a step tell of the files that are there now, and seals it again."""
    lineage = Lineage.model_validate(read_json(run.at(step, "lineage")))
    files = run.at("evaluate", "evaluation")
    model, evaluation = sha256_tree(run.at("train", "model")), sha256_tree(files)
    again = Lineage(run_id=lineage.run_id)
    for entry in lineage.entries:
        change: dict[str, Any] = {}
        if entry.step == "train":
            change = {"outputs": {**entry.outputs, "model": model}}
        elif entry.step == "evaluate":
            change = {
                "facts": {**entry.facts, "metrics": read_json(files / "metrics.json")},
                "inputs": {**entry.inputs, "model": model},
                "outputs": {"evaluation": evaluation},
            }
        again = again.append(entry.model_copy(update=change))
    again.verify()
    write_json(run.at(step, "lineage"), again.model_dump())


def edited(run: Run, step: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the metrics; the lineage of a step is made to fit."""
    file = run.at("evaluate", "evaluation") / "metrics.json"
    metrics = read_json(file)
    change(metrics)
    write_json(file, metrics)
    sealed_again(run, step)


def loosen(metrics: dict[str, Any]) -> None:
    metrics["threshold"]["value"] = 0.0


@pytest.mark.slow
def test_what_was_approved_is_built_and_only_for_who_asks_this_ledger(run: Run, tmp_path: Path) -> None:
    """The control: without an attack there is a Bento. Having been built once is no way around another ledger."""
    run.ledger.approve(run.candidate, actor="ann", reason="looked at it")
    key, public = keys(tmp_path / "keys")
    signing = run.config.package.model_copy(update={"key": str(key)})
    package_candidate(run.config.model_copy(update={"package": signing}), run.candidate, tmp_path / "bento", None)
    verify = [str(Path(sys.executable).with_name("ifas")), "verify", str(tmp_path / "bento"), "--key", str(public)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert f"candidate {run.candidate} of product ifas, approved" in done.stdout, done.stderr
    assert "by ann (looked at it)" in done.stdout
    # The code by which the Bento would check itself finds nothing any more.
    code = tmp_path / "bento" / "bento" / "src" / "ifas" / "core" / "files.py"
    assert "!= said[name]" in code.read_text()
    code.write_text(code.read_text().replace("!= said[name]", "is None"))
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert "bento/src/ifas/core/files.py was changed" in done.stderr
    execute(
        "approve",
        run.config,
        run_id="later",
        inputs={"candidate": run.at("gate", "candidate"), "lineage": run.at("gate", "lineage")},
        outputs={"approval": tmp_path / "approval", "lineage": tmp_path / "approved.json"},
    )
    files = {"approval": tmp_path / "approval", "lineage": tmp_path / "approved.json"}
    assert "approved by ann" in run.package(tmp_path / "again", **files).summary
    (tmp_path / "ledger.db").unlink()
    with pytest.raises(GateError, match=f"no candidate {run.candidate}"):
        run.package(tmp_path / "third", **files)
    assert not (tmp_path / "third").exists()


def test_metrics_are_edited_and_the_lineage_is_sealed_again(run: Run, tmp_path: Path) -> None:
    run.ledger.approve(run.candidate, actor="ann", reason="looked at it")
    edited(run, "gate", loosen)
    with pytest.raises(GateError, match=rf"metrics: SHA-256 .* candidate {run.candidate} was approved with"):
        package_candidate(run.config, run.candidate, tmp_path / "bento", run.folder)
    assert not (tmp_path / "bento").exists()


def test_only_the_metrics_are_edited(run: Run, tmp_path: Path) -> None:
    run.ledger.approve(run.candidate, actor="ann", reason="looked at it")
    file = run.at("evaluate", "evaluation") / "metrics.json"
    metrics = read_json(file)
    loosen(metrics)
    write_json(file, metrics)
    with pytest.raises(DataError, match="is not the evaluation of run waiting"):
        package_candidate(run.config, run.candidate, tmp_path / "bento", run.folder)


def damage(run: Run) -> Path:
    model = run.at("train", "model")
    with (model / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, os.SEEK_END)
        weights.write(b"\x7f")
    return model


def test_another_model_is_put_in_place(run: Run, tmp_path: Path) -> None:
    run.ledger.approve(run.candidate, actor="ann", reason="looked at it")
    damage(run)
    with pytest.raises(DataError, match="is not the model of run waiting"):
        package_candidate(run.config, run.candidate, tmp_path / "bento", run.folder)
    sealed_again(run, "gate")
    with pytest.raises(GateError, match=r"^model: SHA-256"):
        package_candidate(run.config, run.candidate, tmp_path / "bento", run.folder)


def test_another_model_or_other_predictions_are_brought_to_the_gate(run: Run, tmp_path: Path) -> None:
    """What was evaluated is what is judged."""
    with (run.at("evaluate", "evaluation") / "predictions.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="is not the evaluation of run waiting"):
        run.gate(tmp_path / "gate", Path("builtin:permissive"))
    with pytest.raises(DataError, match="is not the model of run waiting"):
        run.gate(tmp_path / "gate", Path("builtin:permissive"), model=damage(run))
    assert [row.id for row in run.ledger.list()] == [run.candidate]


def test_a_candidate_of_another_product_is_packaged(run: Run, tmp_path: Path) -> None:
    run.ledger.approve(run.candidate, actor="ann", reason="looked at it")
    gate = run.config.gate.model_copy(update={"product": "front door"})
    door = Run(run.config.model_copy(update={"gate": gate}), run.folder, run.candidate)
    with pytest.raises(GateError, match="was approved for product ifas, this is for front door"):
        door.package(tmp_path / "bento")


def test_two_runs_that_their_policy_approves_at_once(run: Run, tmp_path: Path) -> None:
    """Both were judged while there was no champion: the second is judged again, against the first."""

    def alike(metrics: dict[str, Any]) -> None:
        metrics["threshold"]["value"] += 1e-6

    edited(run, "evaluate", alike)
    second = run.gate(tmp_path / "second", Path("builtin:permissive"))
    assert second["champion"] is None
    by_policy = run.config.model_copy(update={"approve": run.config.approve.model_copy(update={"by_policy": True})})
    said = []
    for name, folder in (("first", run.folder / "gate"), ("second", tmp_path / "second")):
        inputs = {"candidate": folder / "candidate", "lineage": folder / "lineage"}
        outputs = {"approval": tmp_path / f"{name}-approval", "lineage": tmp_path / f"{name}-lineage"}
        execute("approve", by_policy, run_id=name, inputs=inputs, outputs=outputs)
        said.append(read_json(tmp_path / f"{name}-approval"))
    assert [one["state"] for one in said] == ["approved", "approved"]
    assert said[0]["candidate"] == run.candidate
    again = run.ledger.get(said[1]["candidate"])
    assert again.evidence["champion"] == run.candidate
    assert run.ledger.get(second["candidate"]).state == "superseded"


def test_an_approval_is_written_by_hand(run: Run, tmp_path: Path) -> None:
    real = read_json(run.at("approve", "approval"))
    assert real["state"] == "pending"
    forged = {**real, "state": "approved", "actor": "ann", "reason": "good", "at": "2026-01-01T00:00:00.000+00:00"}
    write_json(tmp_path / "approval", forged)
    with pytest.raises(NotApproved, match=f"{run.candidate} is pending"):
        run.package(tmp_path / "bento", approval=tmp_path / "approval")
    write_json(tmp_path / "approval", {**forged, "candidate": "c0ffee123456"})
    with pytest.raises(GateError, match="no candidate c0ffee123456"):
        run.package(tmp_path / "bento", approval=tmp_path / "approval")
    assert not (tmp_path / "bento").exists()


def test_the_row_of_a_refused_candidate_is_set_to_approved(run: Run, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(json.dumps(HARD))
    refused = run.gate(tmp_path / "gate", policy)
    assert refused["state"] == "refused"
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("UPDATE candidates SET state = 'approved' WHERE id = ?", (refused["candidate"],))
    said = f"candidate {refused['candidate']}: it says approved, its decisions say refused"
    inputs = {"candidate": tmp_path / "gate" / "candidate", "lineage": tmp_path / "gate" / "lineage"}
    outputs = {"approval": tmp_path / "approval", "lineage": tmp_path / "lineage"}
    with pytest.raises(DataError, match=said):
        execute("approve", run.config, run_id="attack", inputs=inputs, outputs=outputs)
    assert not (tmp_path / "approval").exists()
    forged = {**read_json(run.at("approve", "approval")), "candidate": refused["candidate"], "state": "approved"}
    write_json(tmp_path / "forged", forged)
    with pytest.raises(DataError, match=said):
        run.package(tmp_path / "bento", approval=tmp_path / "forged", lineage=tmp_path / "gate" / "lineage")
    assert not (tmp_path / "bento").exists()


def test_the_champions_own_weights_with_a_looser_threshold_are_compared_with_the_champion(
    run: Run, tmp_path: Path
) -> None:
    run.ledger.approve(run.candidate, actor="ann", reason="looked at it")

    def worse(metrics: dict[str, Any]) -> None:
        loosen(metrics)
        metrics["slices"]["target"]["hter"]["value"] = 0.99

    edited(run, "evaluate", worse)
    policy = tmp_path / "policy.yaml"
    policy.write_text(json.dumps({**HARD, "rules": HARD["rules"][:1]}))
    found = run.gate(tmp_path / "gate", policy)
    assert found["champion"] == run.candidate
    assert found["state"] == "refused"
    assert found["decision"]["rules"][0]["champion"] < 0.99


def test_a_difference_counts_if_it_is_to_the_champion_that_the_ledger_has(run: Run, tmp_path: Path) -> None:
    """Whatever the metrics claim about another model. The reports of a real evaluation have all that `strict` reads."""
    run.ledger.approve(run.candidate, actor="ann", reason="looked at it")
    policy = tmp_path / "policy.yaml"
    policy.write_text(json.dumps({"name": "paired", "rules": [{**NO_LOSS, "bound": "interval", "reason": "r"}]}))
    rules = {}
    for other, champion in (("another", "0" * 12), ("this", run.candidate)):
        entry = {"value": -0.1, "interval": [-0.2, 0.0], "champion": 0.6, "n": 40}

        def claimed(metrics: dict[str, Any], of: str = champion, entry: dict[str, Any] = entry) -> None:
            metrics["against_champion"] = {"candidate": of, "model": "m", "slices": {"target": {"hter": entry}}}

        edited(run, "evaluate", claimed)
        found = run.gate(tmp_path / other, policy)
        assert found["champion"] == run.candidate
        (rules[other],) = found["decision"]["rules"]
    assert "no paired difference" in rules["another"]["why"]
    assert not rules["another"]["passed"]
    assert rules["this"]["passed"]
    assert (rules["this"]["difference"], rules["this"]["interval"]) == (-0.1, [-0.2, 0.0])

    strict = run.gate(tmp_path / "strict", Path("builtin:strict"))["decision"]["rules"]
    unread = {
        rule["id"]: rule["why"] for rule in strict if "not in the metrics" in rule["why"] or "unknown" in rule["why"]
    }
    assert unread == {}


def test_a_name_in_the_environment_is_nobodys_identity(run: Run, tmp_path: Path) -> None:
    settings = tmp_path / "config.json"
    settings.write_text(run.config.model_dump_json())
    command = [str(Path(sys.executable).with_name("ifas")), "approve", run.candidate, "--reason", "good"]
    environment = {**os.environ, "LOGNAME": "alice", "USER": "alice", "LNAME": "alice", "USERNAME": "alice"}
    done = subprocess.run([*command, "-c", str(settings)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = run.ledger.checked(run.candidate)[1][-1]
    assert said.actor == f"{pwd.getpwuid(os.getuid()).pw_name} (unverified)"


def test_reviewers_are_known_by_their_keys_from_registration_to_bento(run: Run, tmp_path: Path) -> None:
    """And nobody is by a name: with `ifas`, as people use it."""
    settings = tmp_path / "config.json"
    admin, ann, bob, eve = (keys(tmp_path / name) for name in ("admin", "ann", "bob", "eve"))
    config = run.config.model_copy(
        update={"gate": run.config.gate.model_copy(update={"policy": None, "admin_key": str(admin[1])})}
    )
    settings.write_text(config.model_dump_json())

    def ifas(*words: object, code: int = 0, **environment: str) -> str:
        command = [str(Path(sys.executable).with_name("ifas")), *map(str, words)]
        given = {**os.environ, **environment}
        done = subprocess.run(command, env=given, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    policy = run.ledger.get(run.candidate).facts["policy"]
    (tmp_path / "policy.yaml").write_text(json.dumps(policy))
    register = ("product", "register", "ifas", "--policy", "policy.yaml", "--reason", "the front door", "-c", settings)
    people = ("--reviewer", f"ann={ann[1]}", "--reviewer", f"bob={bob[1]}", "--approvals", 2)
    assert "registered by its administrator" in ifas(*register, *people, "--key", eve[0], code=6)
    assert "approved by 2 of ann, bob (entry 1 of ledger" in ifas(*register, *people, "--key", admin[0])

    approve = ("approve", run.candidate, "--reason", "looked at it", "-c", settings)
    assert "reviewers (ann, bob), who sign" in ifas(*approve, code=6, LOGNAME="ann", USER="ann")
    assert "reviewers (ann, bob), who sign" in ifas(*approve, "--as", "ann", code=6)
    assert "is of no reviewer" in ifas(*approve, "--key", eve[0], "--as", "ann", code=6)
    assert "asks for approvals of more reviewers" in ifas(*approve, "--key", ann[0])
    package = ("package", run.candidate, "--out", "built", "-c", settings, "-s", f"package.key={eve[0]}")
    assert "is pending, not approved" in ifas(*package, code=6)
    assert "is approved" in ifas(*approve, "--key", "env:BOB", BOB=bob[0].read_text())
    ifas(*package)

    (tmp_path / "record.json").write_text(ifas("show", run.candidate, "-c", settings))
    assert "approved by ann, bob" in ifas("verify", "record.json", "--key", admin[1])
    assert "is not signed by the key" in ifas("verify", "record.json", "--key", eve[1], code=6)
    assert "by ann, bob (looked at it)" in ifas("verify", "built", "--key", eve[1])

    assert "has no champion" in ifas(
        "revoke", run.candidate, "--reason", "lets masks in", "--key", ann[0], "-c", settings
    )
    assert "is revoked, not approved" in ifas(*package[:3], "again", *package[4:], code=6)


def test_a_run_chooses_a_permissive_policy_for_a_product_that_has_a_strict_one(run: Run, tmp_path: Path) -> None:
    products = Products(run.config.gate.ledger)
    products.register(
        "ifas", load_policy("builtin:strict"), by_policy=False, people=ANN, actor="admin", reason="a door"
    )
    products.close()
    settings = tmp_path / "config.json"
    settings.write_text(run.config.model_dump_json())
    ifas = [str(Path(sys.executable).with_name("ifas"))]
    loose = ["-s", "gate.policy=builtin:permissive", "-s", "approve.by_policy=true", "-c", str(settings)]

    def refused(*words: str) -> str:
        done = subprocess.run([*ifas, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stdout + done.stderr
        return done.stderr

    said = refused("run", *loose, "--runner", "process")
    assert "product ifas has the policy 'strict', by admin; this run asks for builtin:permissive" in said
    assert "--set gate.policy=null" in said
    assert not list(tmp_path.glob("runs/*/artifacts/*")), "nothing was trained"
    said = refused("run", *loose, "-s", "gate.policy=null", "--runner", "process")
    assert "product ifas is approved by people; this run asks for approve.by_policy" in said

    # Who goes around `ifas run`, step by step, meets it at the gate and at the approval.
    with pytest.raises(ConfigError, match="has the policy 'strict'"):
        run.gate(tmp_path / "gate", Path("builtin:permissive"))
    by_policy = run.config.model_copy(
        update={
            "gate": run.config.gate.model_copy(update={"policy": None}),
            "approve": run.config.approve.model_copy(update={"by_policy": True}),
        }
    )
    inputs = {"candidate": run.at("gate", "candidate"), "lineage": run.at("gate", "lineage")}
    outputs = {"approval": tmp_path / "approval", "lineage": tmp_path / "lineage"}
    with pytest.raises(ConfigError, match="approved by people"):
        execute("approve", by_policy, run_id="attack", inputs=inputs, outputs=outputs)
    assert run.ledger.get(run.candidate).state == "pending"


def test_the_policy_of_a_product_is_edited_in_the_database(run: Run, tmp_path: Path) -> None:
    products = Products(run.config.gate.ledger)
    products.register(
        "ifas", load_policy("builtin:strict"), by_policy=False, people=ANN, actor="admin", reason="a door"
    )
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("DROP TRIGGER products_no_update")
        connection.execute("UPDATE products SET by_policy = 1")
    with pytest.raises(DataError, match="altered at entry 1 of its products, 'ifas'"):
        run.gate(tmp_path / "gate", Path("builtin:permissive"))
    products.close()
