"""The cluster client over the wire, against a local HTTP server that speaks the API paths it uses.

This is a recorded-protocol test: it shows what is sent and how answers are read. It is not a cluster: admission,
scheduling and KubeRay itself are not in it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from ifas.core.errors import LaunchError
from ifas.core.progress import EVENTS_ENV
from ifas.launch.cluster import RayJobs
from ifas.launch.rayjob import RayJobSpec, build_rayjob

SPEC = RayJobSpec(
    step="train",
    run_id="r1",
    image="registry.example/ifas:1",
    config="base",
    inputs={"dataset": "s3://b/d"},
    outputs={"model": "s3://b/m"},
)
JOB = build_rayjob(SPEC)
NAME = JOB["metadata"]["name"]

RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "rayClusterName": "c"}
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
FAILED = {
    "jobDeploymentStatus": "Failed",
    "jobStatus": "FAILED",
    "reason": "AppFailed",
    "message": "exit 5",
    "rayClusterName": "c",
}


class Server(ThreadingHTTPServer):
    """Keeps one RayJob; every GET moves its status one on in `script`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.job = None
        self.script: list[dict] = []
        self.after_get: list[dict | None] = []
        self.pods: list[dict] = []
        self.log = ""
        self.seen: list[tuple[str, str, dict, object]] = []
        self.refuse: tuple[int, str] | None = None
        self.outages = 0

    def methods(self) -> list[str]:
        return [method for method, path, _, _ in self.seen if "/rayjobs/" in path]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_PATCH(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.note(body)
        if self.server.refuse:
            return self.status(*self.server.refuse)
        assert self.headers["Content-Type"] == "application/apply-patch+yaml"
        self.server.job = body
        return self.answer(200, body)

    def do_DELETE(self):
        self.note(None)
        self.server.job = None
        self.answer(200, {"kind": "Status", "status": "Success"})

    def do_GET(self):
        self.note(None)
        path = urlsplit(self.path).path
        if path.endswith("/log"):
            return self.answer(200, self.server.log, kind="text/plain")
        if path.endswith("/pods"):
            return self.answer(200, {"items": self.server.pods})
        if self.server.outages:
            self.server.outages -= 1
            return self.status(503, "apiserver is starting")
        if self.server.job is None:
            return self.status(404, f'rayjobs.ray.io "{NAME}" not found')
        if self.server.script:
            self.server.job = {**self.server.job, "status": self.server.script.pop(0)}
        return self.answer(200, self.server.job)

    def note(self, body):
        parts = urlsplit(self.path)
        self.server.seen.append((self.command, parts.path, parse_qs(parts.query), body))

    def status(self, code, message):
        self.answer(code, {"kind": "Status", "status": "Failure", "code": code, "message": message})

    def answer(self, code, value, kind="application/json"):
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def jobs_at(port, **options):
    from kubernetes import client

    configuration = client.Configuration(host=f"http://127.0.0.1:{port}")
    configuration.retries = False
    return RayJobs(client.ApiClient(configuration), "ifas", poll_s=0.01, **options)


@pytest.fixture
def jobs(server):
    return jobs_at(server.server_address[1])


def test_a_job_that_succeeds(server, jobs, tmp_path, monkeypatch):
    monkeypatch.setenv(EVENTS_ENV, str(tmp_path / "events"))
    waiting = {"jobDeploymentStatus": "Initializing", "rayClusterName": "c"}
    server.pods = [
        {
            "metadata": {"name": "w"},
            "status": {
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: none",
                    }
                ]
            },
        }
    ]
    server.script = [{}, waiting, waiting, RUNNING, DONE]
    outcome = jobs.run(JOB)
    assert outcome.name == NAME
    assert not outcome.reattached
    _, path, query, body = next(item for item in server.seen if item[0] == "PATCH")
    assert path == f"/apis/ray.io/v1/namespaces/ifas/rayjobs/{NAME}"
    assert query == {"fieldManager": ["ifas"], "fieldValidation": ["Strict"]}
    assert body == JOB
    texts = [json.loads(line)["text"] for line in (tmp_path / "events").read_text().splitlines()]
    assert texts[0].endswith("not seen by kuberay yet")
    assert "waiting for GPUs: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu since" in texts[1]
    assert texts[2].endswith("running")
    assert len(texts) == 3, "a line is said once"


def test_failure_names_reason_killed_pods_and_the_log(server, jobs):
    server.pods = [
        {
            "metadata": {"name": "worker-0", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "status": {
                "containerStatuses": [{"lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}],
            },
        }
    ]
    server.log = "step 80 loss 0.31\nTrainingError: killed"
    server.script = [RUNNING, FAILED]
    with pytest.raises(LaunchError) as caught:
        jobs.run(JOB)
    for part in ("AppFailed", "exit 5", "worker-0: OOMKilled (exit 137)", "TrainingError: killed"):
        assert part in caught.value.what
    assert "memory" in caught.value.fix


def test_the_operators_deadline(server, jobs):
    server.script = [RUNNING, {**FAILED, "reason": "DeadlineExceeded"}]
    with pytest.raises(LaunchError, match="DeadlineExceeded") as caught:
        jobs.run(JOB)
    assert "active_deadline_s" in caught.value.fix


def test_a_retry_of_the_operator_is_no_end(server, jobs):
    server.script = [RUNNING, {"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED"}, RUNNING, DONE]
    jobs.run(JOB)


def test_our_own_timeout_deletes_the_job(server, jobs):
    server.script = [RUNNING] * 1000
    with pytest.raises(LaunchError, match="did not end within"):
        jobs.run(JOB, timeout_s=0.1)
    assert server.job is None


def test_a_running_job_of_the_same_run_is_watched_on(server, jobs):
    server.job = {**JOB, "status": RUNNING}
    server.script = [RUNNING, RUNNING, DONE]
    assert jobs.run(JOB).reattached
    assert "PATCH" not in server.methods()


def test_a_failed_job_of_the_same_run_is_replaced(server, jobs):
    server.job = {**JOB, "status": FAILED}
    server.script = [FAILED]
    jobs.ensure(JOB)
    assert server.methods() == ["GET", "DELETE", "GET", "PATCH"]


def test_a_different_job_of_the_same_name_is_not_touched(server, jobs):
    server.job = {**build_rayjob(replace(SPEC, overrides=("train.steps=9",))), "status": RUNNING}
    with pytest.raises(LaunchError, match="another specification"):
        jobs.run(JOB)
    assert server.methods() == ["GET"]


def test_an_outage_of_the_api_server_is_waited_out(server, jobs):
    jobs.ensure(JOB)
    server.outages, server.script = 3, [DONE]
    jobs.wait(NAME, "train", timeout_s=30)


def test_a_long_outage_says_that_the_job_may_still_run(server):
    jobs = jobs_at(server.server_address[1], outage_s=0.05)
    jobs.ensure(JOB)
    server.outages = 10**6
    with pytest.raises(LaunchError) as caught:
        jobs.wait(NAME, "train", timeout_s=30)
    assert "may still run" in caught.value.fix


def test_a_job_deleted_by_someone_else(server, jobs):
    with pytest.raises(LaunchError, match="was deleted"):
        jobs.wait(NAME, "train", timeout_s=30)


@pytest.mark.parametrize(
    ("code", "message", "says"),
    [
        (403, 'rayjobs.ray.io is forbidden: User "x" cannot patch', "does not allow PATCH"),
        (400, 'strict decoding error: unknown field "spec.foo"', "spec.foo"),
        (404, "the server could not find the requested resource", "KubeRay operator"),
    ],
)
def test_refusals_say_why(server, jobs, code, message, says):
    server.refuse = (code, message)
    with pytest.raises(LaunchError) as caught:
        jobs.run(JOB)
    assert says in str(caught.value)


def test_connection_refused():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(LaunchError, match=f"127.0.0.1:{port} can't be reached"):
        jobs_at(port).run(JOB)


def test_sigterm_deletes_the_job(server, jobs):
    server.script = [RUNNING] * 10_000
    before = signal.getsignal(signal.SIGTERM)
    killer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        jobs.run(JOB)
    assert server.methods()[-1] == "DELETE"
    assert server.job is None
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_cluster_configured(monkeypatch, tmp_path):
    from ifas.launch.cluster import connect

    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    begin = time.monotonic()
    with pytest.raises(LaunchError, match="no Kubernetes cluster"):
        connect()
    assert time.monotonic() - begin < 5
