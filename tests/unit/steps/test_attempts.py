"""Tries of a step in a pipeline run: which are worth repeating, and how the run's end is told."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ifas.core.config import load
from ifas.core.errors import EXIT_CODES, ConfigError, DataError, IfasError, LaunchError, StoreAway
from ifas.core.records import Usage
from ifas.steps import ending
from ifas.steps.attempts import counted, failures, keep_usage, spent


@pytest.fixture
def config(tmp_path):
    return load("tiny", [f"cluster.storage={tmp_path / 'shared'}", "cluster.retries=2"])


def attempt(config, error=None, step="train", run="r"):
    """One try; returns whether it ran at all."""
    ran = []
    try:
        with counted(step, config.cluster, run):
            ran.append(True)
            if error is not None:
                raise error
    except IfasError:
        return bool(ran)
    except RuntimeError:
        return bool(ran)
    return True


def test_a_user_s_error_is_not_tried_again(config):
    assert attempt(config, DataError("no images", "add some"))
    with pytest.raises(IfasError, match="no images") as caught, counted("train", config.cluster, "r"):
        pytest.fail("it ran again")
    assert caught.value.exit_code == DataError.exit_code
    assert caught.value.fix == "add some; then submit a new run: a retry of this one ends here"


@pytest.mark.parametrize("error", [LaunchError("quota", "free it"), StoreAway("away", "wait")])
def test_the_infrastructure_has_as_many_retries_as_configured(config, error):
    assert [attempt(config, error) for _ in range(5)] == [True, True, True, False, False]
    assert len(failures(config.cluster, "r", "train")) == 3


def test_a_bug_is_not_tried_again_and_leaves_its_last_lines(config):
    assert attempt(config, RuntimeError("index 7 is out of range"))
    assert not attempt(config)
    (failure,) = failures(config.cluster, "r", "train")
    assert "index 7" in failure.what
    assert "test_attempts.py" in failure.last


def test_a_pod_that_was_taken_away_costs_nothing(config):
    class Killed(BaseException):
        pass

    for _ in range(9):
        with pytest.raises(Killed), counted("train", config.cluster, "r"):
            raise Killed
    assert attempt(config)


def test_runs_and_steps_are_counted_apart(config):
    attempt(config, ConfigError("wrong", "right"))
    assert attempt(config, step="caption")
    assert attempt(config, run="other")


def test_without_storage_every_try_runs(config):
    bare = load("tiny")
    assert all(attempt(bare, DataError("no images")) for _ in range(3))
    assert failures(bare.cluster, "r", "train") == []


def test_every_error_says_what_a_retry_of_the_pipeline_does():
    """The exit codes that can go away by themselves are those of servers and machines."""

    def below(kind):
        return [kind, *(one for sub in kind.__subclasses__() for one in below(sub))]

    repeated = {kind.exit_code for kind in below(IfasError) if kind.repeat and kind is not StoreAway}
    assert repeated == {7, 9}
    assert repeated < set(EXIT_CODES)


@pytest.fixture
def webhook():
    """(URL, bodies received, statuses to answer first)."""
    got, answers = [], []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args):
            pass

        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answers.pop(0) if answers else 200)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", got, answers
    server.shutdown()
    server.server_close()


def told(config, state, message=""):
    ending.tell(config.model_dump_json(), "r", state=state, message=message)


def test_a_failed_run_names_step_cause_and_what_to_do(config, webhook, monkeypatch, capsys):
    url, got, _ = webhook
    monkeypatch.setenv(ending.WEBHOOK_ENV, url)
    attempt(config, LaunchError("quota exceeded", "free 2 GPUs"), step="caption")
    attempt(config, RuntimeError("boom"), step="train")
    told(config, "FAILED", "KFP's words")
    (said,) = got
    assert {k: said[k] for k in ("run", "state", "step", "code", "tries", "profile")} == {
        "run": "r",
        "state": "FAILED",
        "step": "train",
        "code": 1,
        "tries": 1,
        "profile": "tiny",
    }
    assert "boom" in said["what"]
    assert "test_attempts.py" in said["last"]
    assert "report it" in said["fix"]
    assert "run r failed in step train" in capsys.readouterr().out


def test_the_end_of_a_run_tells_what_every_step_used(config, webhook, monkeypatch, capsys):
    url, got, _ = webhook
    monkeypatch.setenv(ending.WEBHOOK_ENV, url)
    usage = Usage(cpu_hours=2.0, gpu_hours=0.5, peak_memory_gib=3.25, price=1.5, currency="EUR")
    keep_usage("ingest", config.cluster, "r", usage)  # in no pod: nobody pays for it
    monkeypatch.setenv("KFP_RUN_ID", "r")
    keep_usage("package", config.cluster, "r", usage)
    keep_usage("evaluate", config.cluster, "r", usage.model_copy(update={"price": 0.25}))
    keep_usage("gate", config.cluster, "another", usage)
    told(config, "SUCCEEDED")
    (said,) = got
    assert list(said["costs"]) == ["evaluate", "package"], "in the order of the DAG"
    assert said["costs"]["package"] == usage.model_dump()
    shown = capsys.readouterr().out
    assert "package   2.000 CPU-h  0.500 GPU-h  3.25 GiB  1.50 EUR" in shown
    assert "all       1.75 EUR" in shown


def test_a_step_that_failed_and_then_succeeded_did_not_end_the_run(config, webhook):
    url, got, _ = webhook
    config = config.model_copy(update={"cluster": config.cluster.model_copy(update={"webhook": url})})
    attempt(config, LaunchError("away"))
    attempt(config)
    told(config, "FAILED", "pod train was evicted")
    assert "step" not in got[0]
    assert got[0]["what"] == "pod train was evicted"


def test_a_pod_that_said_nothing(config, webhook, capsys):
    told(config, "FAILED", "")
    out = capsys.readouterr().out
    assert "was killed, or never started" in out
    assert "ifas logs r" in out


def test_a_webhook_that_stumbles_is_tried_again(config, webhook, monkeypatch):
    url, got, answers = webhook
    monkeypatch.setenv(ending.WEBHOOK_ENV, url)
    monkeypatch.setattr(ending, "PAUSES", (0, 0, 0))
    answers[:] = [500, 503]
    told(config, "SUCCEEDED")
    assert len(got) == 3


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/hook", "ftp://x/hook"])
def test_a_webhook_that_is_away_or_wrong_fails_nothing(config, url, monkeypatch, capsys):
    monkeypatch.setenv(ending.WEBHOOK_ENV, url)
    monkeypatch.setattr(ending, "PAUSES", (0,))
    told(config, "SUCCEEDED")
    assert "the webhook was not told" in capsys.readouterr().err


@pytest.mark.parametrize("state", ["SUCCEEDED", "COMPLETE", "CACHED"])
def test_each_of_kfp_s_names_of_success_is_one(config, state):
    assert ending.ending(config, "r", state=state, message="") == {
        "run": "r",
        "state": "SUCCEEDED",
        "profile": "tiny",
        "dataset": config.ingest.dataset,
    }


def test_a_webhook_that_speaks_no_http_fails_nothing(config, monkeypatch, capsys):
    monkeypatch.setattr(ending, "PAUSES", (0,))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            connection.recv(9999)
            connection.sendall(b"SSH-2.0-x\r\n")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setenv(ending.WEBHOOK_ENV, f"http://127.0.0.1:{server.getsockname()[1]}/hook")
        told(config, "SUCCEEDED")
    assert "the webhook was not told: SSH-2.0-x" in capsys.readouterr().err


def test_the_price_of_failed_tries_is_kept(config):
    """Of a RayJob, that of its cluster, though the pod that watches it is small."""
    config = load("tiny", [f"cluster.storage={config.cluster.storage}", "cluster.prices.cpu=1000"])
    for _ in range(2):
        with pytest.raises(LaunchError), counted("train", config.cluster, "r"):
            time.sleep(0.1)
            raise LaunchError("quota")
    job = config.cluster.train
    assert job.ray == "job"
    cpus = job.head_cpus + job.max_workers * job.worker_cpus
    assert spent(config.cluster, "r", "train") >= 0.2 / 3600 * 1000 * cpus
    assert spent(config.cluster, "other", "train") == 0
