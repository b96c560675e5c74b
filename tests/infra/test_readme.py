"""infra/README.md is followed: its files are written and its `ifas` commands run, against a stand-in for KFP."""

import json
import re
import shlex

import pytest
import yaml
from ifas_pipelines.cluster import GIT_KEYS, SECRET_KEYS
from typer.testing import CliRunner

from ifas.cli.main import app
from tests.infra.test_manifests import INFRA
from tests.servers_kfp import kfp_server

DIGEST = "sha256:" + "1" * 64
#: A file, or commands, in the steps from an empty cluster to a schedule.
BLOCK = re.compile(r"^   ```(yaml)?\n(.*?)^   ```$", re.DOTALL | re.MULTILINE)
#: A file's name, in the text before it.
NAMED = re.compile(r"here `([\w./-]+\.yaml)`")


def walk():
    """("file", name, text) and ("command", words, line) of the steps, in their order."""
    text = (INFRA / "README.md").read_text(encoding="utf-8")
    text = text[text.index("## From an empty cluster") : text.index("## A team of its own")]
    found = []
    for match in BLOCK.finditer(text):
        body = match[2].replace("REGISTRY/ifas@sha256:...", f"registry.example.org/ifas@{DIGEST}")
        if match[1]:
            found.append(("file", NAMED.findall(text[: match.start()])[-1], body))
            continue
        lines = ((shlex.split(line, comments=True), line.strip()) for line in body.replace("\\\n", " ").splitlines())
        found += [("command", words, line) for words, line in lines if words]
    return found


def test_a_platform_engineer_who_follows_it_gets_a_run_and_a_schedule(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IFAS_IMAGE", raising=False)
    with kfp_server(several_users=True) as kfp:
        done = []
        for kind, what, text in walk():
            if kind == "file":
                (tmp_path / what).parent.mkdir(exist_ok=True)
                (tmp_path / what).write_text(text)
            elif what[0] == "export":
                name, _, value = what[1].partition("=")
                monkeypatch.setenv(name, {"https://KFP": kfp.url}.get(value, value))
            elif what[0] == "ifas" and what[1] != "cluster":
                result = CliRunner().invoke(app, what[1:])
                assert result.exit_code == 0, f"{text}\n{result.output}\n{result.exception}"
                done.append(what[1])
        assert done == ["submit", "submit", "runs", "schedule", "schedule", "schedule"]
        (run,) = kfp.runs.values()
        (schedule,) = kfp.recurring.values()
    for made in (run, schedule):
        executors = made.pipeline_spec["pipeline_spec"]["deploymentSpec"]["executors"].values()
        assert {executor["container"]["image"] for executor in executors} == {f"registry.example.org/ifas@{DIGEST}"}
        config = json.loads(made.runtime_config.parameters["config"])
        assert config["cluster"]["storage"].startswith("s3://")
        # Its pods may reach the store; a model hub is not among the network policies' flows.
        assert config["model"]["vision"]["source"].startswith("s3://")
        assert config["model"]["language"]["source"].startswith("s3://")


def test_its_order_works():
    """Nothing is put into the namespace before the overlay has made it; no pod runs before its Secrets are there."""
    lines = [text for kind, _, text in walk() if kind == "command"]

    def first(start):
        return next(number for number, line in enumerate(lines) if line.startswith(start))

    inside = next(number for number, line in enumerate(lines) if "-n ifas" in line)
    assert first("kubectl apply --server-side -k") < inside
    assert first("kubectl -n ifas create secret generic ifas-credentials") < first("ifas cluster check")
    assert first("kubectl -n ifas create secret generic ifas-git") < first("ifas submit")


@pytest.mark.parametrize(("secret", "keys"), [("ifas-credentials", SECRET_KEYS), ("ifas-git", GIT_KEYS)])
def test_its_secrets_have_the_keys_that_pods_read(secret, keys):
    (words,) = [what for kind, what, _ in walk() if kind == "command" and secret in what]
    assert {re.fullmatch(r"--from-file=(\w+)=\S+", word)[1] for word in words if word.startswith("--")} == set(keys)
    if secret == "ifas-git":
        (file,) = [yaml.safe_load(text) for kind, name, text in walk() if kind == "file" and name == "faces.yaml"]
        assert file["cluster"]["git_secret"] == secret
