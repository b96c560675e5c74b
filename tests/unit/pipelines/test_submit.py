"""`ifas submit` over the wire: a recorded-protocol test (a local server answers as the KFP API does), no cluster."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from ifas.cli.main import app
from ifas.core.errors import ConfigError, LaunchError

API = "/apis/v2beta1"
PROTOCOL = ("-s", "protocol.source_domains=[a]", "-s", "protocol.target_domains=[b]")


@pytest.fixture
def kfp_api():
    """(URL, requests seen). Knows the paths that a submission calls; anything else is a 404."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args):
            pass

        def answer(self, body):
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            seen.append(("GET", self.path, None))
            if self.path.startswith(f"{API}/healthz"):
                self.answer({"multi_user": False})
            elif self.path.startswith(f"{API}/experiments"):
                self.answer({"experiments": [{"experiment_id": "e1", "display_name": "ifas"}], "total_size": 1})
            else:
                self.send_error(404)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append(("POST", self.path, body))
            if self.path.startswith(f"{API}/runs"):
                self.answer({"run_id": "run-42", "display_name": body["display_name"]})
            elif self.path.startswith(f"{API}/experiments"):
                self.answer({"experiment_id": "e1", "display_name": "ifas"})
            else:
                self.send_error(404)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_the_run_carries_ir_platform_spec_and_arguments(kfp_api):
    url, seen = kfp_api
    result = CliRunner().invoke(app, ["submit", "--endpoint", url, "-c", "base", "-s", "train.steps=7", *PROTOCOL])
    assert result.exit_code == 0, result.output
    assert "run-42" in result.output
    run = next(body for method, path, body in seen if method == "POST" and path.startswith(f"{API}/runs"))
    spec = run["pipeline_spec"]
    assert spec["pipeline_spec"]["pipelineInfo"]["name"] == "retrain"
    assert "kubernetes" in spec["platform_spec"]["platforms"]
    config = json.loads(run["runtime_config"]["parameters"]["config"])
    assert config["profile"] == "base"
    assert config["train"]["steps"] == 7
    assert run["runtime_config"]["parameters"]["run_id"] == run["display_name"]


@pytest.mark.filterwarnings("ignore")
def test_an_endpoint_that_is_down_is_named():
    result = CliRunner().invoke(app, ["submit", "--endpoint", "http://127.0.0.1:9", *PROTOCOL])
    assert isinstance(result.exception, LaunchError)
    assert "http://127.0.0.1:9" in result.exception.what


def test_dry_run_sends_nothing(kfp_api):
    url, seen = kfp_api
    result = CliRunner().invoke(app, ["submit", "--endpoint", url, "--dry-run", *PROTOCOL])
    assert result.exit_code == 0
    assert seen == []


def test_what_can_not_succeed_is_not_sent(kfp_api):
    url, seen = kfp_api
    wrong = (
        "-s",
        "gate.policy=builtin:none",
        "-s",
        "train.species_weights={paper: 2}",
        "-s",
        "train.storage=ftps9://x",
    )
    result = CliRunner().invoke(app, ["submit", "--endpoint", url, *wrong])
    assert isinstance(result.exception, ConfigError)
    for said in ("protocol.source_domains", "builtin:none", "'none'", "strict", "paper", "mannequin", "ftps9", "s3://"):
        assert said.removeprefix("builtin:") in result.exception.what
    assert seen == []
