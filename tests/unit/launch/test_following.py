"""A RayJob's log, as its launcher follows it: what is new, once, across restarts of the submitter and outages."""

from __future__ import annotations

import json
import time

import pytest
from kubernetes import client

from ifas.core.progress import EVENTS_ENV
from ifas.launch.following import Follower, following
from tests.api_server import Fault, api_server

NAME = "ifas-train-r"


@pytest.fixture
def api():
    with api_server() as server:
        yield server


def pod(api, name, created):
    api.put(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": "ifas",
                "labels": {"job-name": NAME},
                "creationTimestamp": created,
            },
            "spec": {"containers": [{"name": "ray-job-submitter", "image": "i"}]},
        }
    )


def follower(api):
    configuration = client.Configuration(host=api.url)
    configuration.retries = False
    return Follower(client.ApiClient(configuration), "ifas", NAME, "train")


def event(t, kind, **fields):
    return json.dumps({"t": t, "kind": kind, "step": "train", **fields}) + "\n"


def test_lines_appear_once_and_events_become_this_process_s(api, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv(EVENTS_ENV, str(tmp_path / "events"))
    found = follower(api)
    found.look()  # no pod yet
    pod(api, "s-1", "2026-01-01T00:00:00Z")
    api.logs["s-1"] = "Job submitted\n" + event(1.0, "progress", done=1, total=2, unit="steps", loss=0.5)
    found.look()
    api.logs["s-1"] += event(2.0, "note", text="half") + "not {json\n"
    found.look()
    found.look()
    assert capsys.readouterr().out.splitlines() == ["Job submitted", "not {json"]
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert [(e["kind"], e.get("done"), e.get("loss"), e.get("text")) for e in events] == [
        ("progress", 1, 0.5, None),
        ("note", None, None, "half"),
    ]


def test_a_new_submitter_repeats_no_event(api, tmp_path, monkeypatch):
    monkeypatch.setenv(EVENTS_ENV, str(tmp_path / "events"))
    found = follower(api)
    pod(api, "s-1", "2026-01-01T00:00:00Z")
    api.logs["s-1"] = event(1.0, "note", text="one")
    found.look()
    pod(api, "s-2", "2026-01-01T00:05:00Z")
    # Two within a millisecond, and one of a worker whose clock is behind.
    news = event(2.0, "note", text="two") + event(2.0, "note", text="three") + event(0.5, "note", text="four")
    api.logs["s-2"] = "Job submitted\n" + event(1.0, "note", text="one") + news
    found.look()
    texts = [json.loads(line)["text"] for line in (tmp_path / "events").read_text().splitlines()]
    assert texts == ["one", "two", "three", "four"]


def test_the_step_s_error_with_its_exit_code(api):
    pod(api, "s-1", "2026-01-01T00:00:00Z")
    api.logs["s-1"] = event(9.0, "note", text="of a worker whose clock is ahead")
    api.logs["s-1"] += event(1.0, "failed", what="loss is NaN", fix="lower train.lr", code=5, repeat=False)
    found = follower(api)
    with following(found.api, "ifas", NAME, "train", poll_s=60) as log:
        pass
    assert log.failure is not None
    assert (log.failure.what, log.failure.exit_code) == ("loss is NaN", 5)


def test_what_the_kubelet_says_itself_hides_no_line(api, capsys):
    """Where it has no log, it says so with 200 and without a time; a progress bar's line has carriage returns."""
    pod(api, "s-1", "2026-01-01T00:00:00Z")
    found = follower(api)
    api.faults.append(Fault(200, message="unable to retrieve logs", match=lambda _, path: path.endswith("/log")))
    found.look()
    api.logs["s-1"] = "bar 1\rbar 2\n"
    found.look()
    api.logs["s-1"] += "next\n"
    found.look()
    assert capsys.readouterr().out == "bar 1\rbar 2\nnext\n"


def test_an_outage_loses_nothing(api, capsys):
    pod(api, "s-1", "2026-01-01T00:00:00Z")
    api.logs["s-1"] = "one\ntwo\n"
    found = follower(api)
    api.faults.append(Fault(code=503, times=1))
    found.look()
    assert capsys.readouterr().out == ""
    api.stop()
    found.look()
    api.start()
    found.look()
    assert capsys.readouterr().out.splitlines() == ["one", "two"]


def test_progress_is_shown_in_a_pod_s_log(api, capsys):
    """Nobody tails its events, so now and then a line says how far the job is."""
    pod(api, "s-1", "2026-01-01T00:00:00Z")
    api.logs["s-1"] = "".join(event(n, "progress", done=n, total=9, unit="steps") for n in range(1, 9))
    found = follower(api)
    found._shown = time.monotonic() - 3600
    found.look()
    assert capsys.readouterr().out.splitlines() == ["train     1 of 9 steps"]
