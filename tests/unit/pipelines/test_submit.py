"""`ifas submit|runs|logs|cancel` over the wire, against a stand-in made from kfp-server-api's own models."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import kfp_server_api
import pytest
from typer.testing import CliRunner

from ifas.cli.main import app
from ifas.core.account import account
from ifas.core.errors import ConfigError, LaunchError
from tests.servers_kfp import kfp_server

IMAGE = "registry.example.org/ifas@sha256:" + "1" * 64
#: What no profile can know.
OURS = {
    "protocol.source_domains": "[a]",
    "protocol.target_domains": "[b]",
    "ingest.registry": "https://git.example.org/faces.git",
    "cluster.image": IMAGE,
    "cluster.storage": "s3://ifas/kept",
}


def settings(**changes):
    given = {**OURS, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [word for key, value in given.items() if value is not None for word in ("-s", f"{key}={value}")]


PROTOCOL = settings()


@pytest.fixture
def kfp():
    with kfp_server() as server:
        yield server


def ifas(*args):
    return CliRunner().invoke(app, [*args])


def submitted(server, *options):
    result = ifas("submit", "--endpoint", server.url, "-c", "base", *PROTOCOL, *options)
    assert result.exit_code == 0, result.output
    return server.runs[result.output.strip()]


def test_the_run_carries_ir_platform_spec_and_arguments(kfp):
    run = submitted(kfp, "-s", "train.steps=7", "-s", "cluster.train.ray=own", "-s", "cluster.steps.train.gpus=3")
    spec = run.pipeline_spec
    assert spec["pipeline_spec"]["pipelineInfo"]["name"] == "retrain"
    assert "kubernetes" in spec["platform_spec"]["platforms"]
    parameters = run.runtime_config.parameters
    config = json.loads(parameters["config"])
    assert config["profile"] == "base"
    assert config["train"]["steps"] == 7
    assert config["gate"]["submitter"] == account(), "in the pods, everybody is the same account"
    train = spec["pipeline_spec"]["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert train["resources"]["accelerator"]["resourceCount"] == "3", "sizes follow from the configuration"
    # Each run of a schedule needs a name of its own: KFP's.
    assert parameters["run_id"] == ""


def images(run):
    """The image of each task, and what its pod is told of it."""
    executors = run.pipeline_spec["pipeline_spec"]["deploymentSpec"]["executors"].values()
    containers = [executor["container"] for executor in executors]
    return {(one["image"], *(e["value"] for e in one["env"] if e["name"] == "IFAS_IMAGE")) for one in containers}


def test_every_pod_has_the_image_of_the_configuration(kfp, monkeypatch):
    assert images(submitted(kfp)) == {(IMAGE, IMAGE)}
    monkeypatch.setenv("IFAS_IMAGE", other := IMAGE.replace("1", "2"))
    assert images(submitted(kfp, "-s", "cluster.image=''")) == {(other, other)}


@pytest.mark.parametrize(
    ("without", "fix"),
    [
        ("cluster__image", "cluster.image=REGISTRY/ifas@sha256:"),
        ("cluster__storage", "cluster.storage=s3://"),
        ("ingest__registry", "ingest.registry=URL"),
    ],
)
def test_pods_that_could_not_work_are_not_sent(kfp, monkeypatch, without, fix):
    monkeypatch.delenv("IFAS_IMAGE", raising=False)
    result = ifas("submit", "--endpoint", kfp.url, "-c", "base", *settings(**{without: None}))
    assert isinstance(result.exception, ConfigError)
    assert fix in result.exception.fix
    assert kfp.seen == []


@pytest.mark.parametrize(
    ("changes", "sent"),
    [
        ({"cluster.storage": "/shared"}, False),
        ({"ingest.registry": "/home/me/registry"}, False),
        ({"ingest.registry": "file:///home/me/registry"}, False),
        ({"ingest.registry": "git@git.example.org:faces.git"}, True),
        ({"cluster.storage": "/shared", "cluster.storage_claim": "c", "ingest.registry": "/shared"}, True),
        ({"cluster.storage": "/shared", "cluster.storage_claim": "c", "ingest.registry": "file:///shared/r"}, True),
        ({"cluster.storage": "/shared", "cluster.storage_claim": "c", "ingest.registry": "/shared/../r"}, False),
        ({"package.key": "key.pem"}, False),
        ({"package.key": "env:MY_KEY"}, False),
        ({"package.key": "env:IFAS_PACKAGE_KEY"}, True),
        ({"gate.key": "gate.pem"}, False),
        ({"gate.key": "env:IFAS_GATE_KEY"}, True),
    ],
)
def test_only_what_a_pod_can_read_is_a_place(kfp, changes, sent):
    result = ifas("submit", "--endpoint", kfp.url, "-c", "base", *settings(**changes))
    assert (result.exit_code == 0) is sent, result.exception
    assert bool(kfp.runs) is sent


def test_account_and_root_are_those_of_the_configuration(kfp):
    """KFP's default account, pipeline-runner, is in KFP's own namespace only."""
    assert submitted(kfp).service_account == "ifas-pipeline-runner"
    run = submitted(kfp, "-s", "cluster.service_account=team-runner", "-s", "cluster.pipeline_root=s3://ifas/kfp")
    assert run.service_account == "team-runner"
    assert run.runtime_config.pipeline_root == "s3://ifas/kfp"


def test_a_kfp_of_several_users_gets_the_namespace():
    with kfp_server(several_users=True) as server:
        submitted(server, "-s", "cluster.namespace=team-a")
        assert {one.namespace for one in server.experiments.values()} == {"team-a"}
        submitted(server, "--namespace", "team-b")
        assert {one.namespace for one in server.experiments.values()} == {"team-a", "team-b"}


def test_a_token(monkeypatch):
    with kfp_server(token="sesame") as server:
        refused = ifas("submit", "--endpoint", server.url, *PROTOCOL)
        assert isinstance(refused.exception, LaunchError)
        assert "401" in refused.exception.what
        monkeypatch.setenv("KFP_TOKEN", "sesame")
        submitted(server)


def test_an_endpoint_that_is_down_is_named():
    result = ifas("submit", "--endpoint", "http://127.0.0.1:9", *PROTOCOL)
    assert isinstance(result.exception, LaunchError)
    assert "http://127.0.0.1:9" in result.exception.what


def test_dry_run_sends_nothing(kfp):
    result = ifas("submit", "--endpoint", kfp.url, "--dry-run", *PROTOCOL)
    assert result.exit_code == 0
    assert kfp.seen == []


def test_what_can_not_succeed_is_not_sent(kfp):
    wrong = (
        "-s",
        "gate.policy=builtin:none",
        "-s",
        "train.species_weights={paper: 2}",
        "-s",
        "train.storage=ftps9://x",
    )
    result = ifas("submit", "--endpoint", kfp.url, *wrong)
    assert isinstance(result.exception, ConfigError)
    for said in ("protocol.source_domains", "builtin:none", "'none'", "strict", "paper", "mannequin", "ftps9", "s3://"):
        assert said.removeprefix("builtin:") in result.exception.what
    assert kfp.seen == []


def test_what_the_rayjobs_can_not_hold_is_not_sent(kfp):
    result = ifas("submit", "--endpoint", kfp.url, *PROTOCOL, "-s", "train.workers=4")
    assert isinstance(result.exception, ConfigError)
    assert "cluster.train.max_workers=4" in result.exception.fix
    assert kfp.seen == []


def test_runs_are_listed_newest_first(kfp):
    older, newer = submitted(kfp), submitted(kfp)
    newer.state = "RUNNING"
    lines = ifas("runs", "--endpoint", kfp.url).output.splitlines()
    assert [line.split()[0] for line in lines] == [newer.run_id, older.run_id]
    assert lines[0].split()[1] == "RUNNING"
    (one,) = json.loads(ifas("runs", "--endpoint", kfp.url, "--count", "1", "--json").output)
    assert one["id"] == newer.run_id
    assert one["name"] == newer.display_name


def test_cancel(kfp):
    run = submitted(kfp)
    assert ifas("cancel", run.run_id, "--endpoint", kfp.url).exit_code == 0
    assert run.state == "CANCELING"
    run.state = "SUCCEEDED"
    late = ifas("cancel", run.run_id, "--endpoint", kfp.url)
    assert "already SUCCEEDED" in late.exception.what


def test_an_unknown_run(kfp):
    result = ifas("logs", "nobody", "--endpoint", kfp.url)
    assert isinstance(result.exception, LaunchError)
    assert "Run nobody not found" in result.exception.what


@pytest.fixture
def pods(tmp_path, monkeypatch):
    """Pod name -> its log, at an API server that KUBECONFIG names."""
    kept = {}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args):
            pass

        def do_GET(self):
            found = re.fullmatch(r"/api/v1/namespaces/ifas/pods/(.+)/log\?container=main&tailLines=(\d+)", self.path)
            text = kept.get(found[1]) if found else None
            data = "\n".join((text or "").splitlines()[-int(found[2]) :]).encode() if found else b""
            self.send_response(200 if text is not None else 404)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    # The client reads the variable when it is imported, which may have been in another test.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    yield kept
    server.shutdown()
    server.server_close()


def test_logs_of_each_step(kfp, pods):
    run = submitted(kfp)
    detail = kfp_server_api.V2beta1PipelineTaskDetail
    run.state, run.error = "FAILED", kfp_server_api.GoogleRpcStatus(message="step train failed")
    run.run_details = kfp_server_api.V2beta1RunDetails(
        task_details=[
            detail(display_name="ingest", state="SUCCEEDED", pod_name="p-ingest"),
            detail(display_name="train", state="FAILED", pod_name="p-train"),
            detail(display_name="evaluate", state="PENDING"),
            detail(display_name="caption", state="SUCCEEDED", pod_name="p-gone"),
        ]
    )
    pods.update({"p-ingest": "packed", "p-train": "step 1\nstep 2\nerror: NaN"})
    result = ifas("logs", run.run_id, "--endpoint", kfp.url, "--tail", "2")
    assert result.exit_code == 0, result.exception
    said = result.output
    assert said.startswith(f"run {run.run_id} failed: step train failed")
    assert "== ingest (succeeded, pod p-ingest)\npacked" in said
    assert "== train (failed, pod p-train)\nstep 2\nerror: NaN" in said
    assert "no pod p-gone" in said
    assert "evaluate" not in said
    only = ifas("logs", run.run_id, "--endpoint", kfp.url, "--step", "train").output
    assert "step 1" in only
    assert "ingest" not in only
    wrong = ifas("logs", run.run_id, "--endpoint", kfp.url, "--step", "trein")
    assert "caption, ingest, train" in wrong.exception.fix
