"""The real service in a process of its own, against a stand-in for KFP: honest senders, hostile ones, and crashes."""

import http.client
import json
import socket
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from ifas.cli.main import app
from ifas.core.errors import ConfigError
from ifas.trigger.service import BODY_SECONDS, MAX_BODY_BYTES
from ifas.trigger.signature import sign
from ifas.trigger.store import Store
from ifas.trigger.tables import TRIGGER
from tests.servers_kfp import kfp_server
from tests.servers_pg import postgres_server
from tests.servers_trigger import (
    APPROVED,
    DRIFT,
    IMAGE,
    KEY,
    OTHER_KEY,
    SECRETS,
    event,
    trigger_server,
    write_file,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kfp():
    with kfp_server() as api:
        yield api


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("trigger")


@pytest.fixture(scope="module")
def store(place):
    kept = Store(f"sqlite:///{place / 'trigger.db'}")
    yield kept
    kept.close()


@pytest.fixture(scope="module")
def server(kfp, place, store):
    file = write_file(place / "trigger.yaml")
    with trigger_server(file, f"sqlite:///{place / 'trigger.db'}", kfp.url, place / "log") as running:
        yield running


def of(store, id):
    return next((one for one in store.listed(limit=10_000)["events"] if one["id"] == id), None)


def eventually(check, seconds=60):
    until = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.1)
    return found


def in_state(store, id, state):
    return eventually(lambda: (found := of(store, id)) and found["state"] == state and found)


def test_an_event_starts_a_run_with_its_values(server, store, kfp):
    status, said = server.send(event("first", dataset="one", revision="2026"))
    assert (status, json.loads(said)) == (202, {"id": "first", "kept": "new"})
    found = in_state(store, "first", "started")
    (run,) = kfp.runs_named(found["run"])
    assert run.run_id == found["run_id"]
    config = json.loads(run.runtime_config.parameters["config"])
    assert (config["ingest"]["dataset"], config["ingest"]["revision"]) == ("one", "2026")
    executors = run.pipeline_spec["pipeline_spec"]["deploymentSpec"]["executors"].values()
    assert {executor["container"]["image"] for executor in executors} == {IMAGE}


def test_binary_mode(server, store):
    said = event("binary", dataset="binary")
    body = json.dumps(said.pop("data")).encode()
    headers = {"content-type": "application/json", **{f"ce-{name}": value for name, value in said.items()}}
    signed = {**headers, **sign(headers, body, KEY)}
    assert server.request("POST", "/events", body, signed)[0] == 202
    assert of(store, "binary")["about"] == "binary"
    # The attributes are signed, too: nobody makes another event of a request that was listened to.
    assert server.request("POST", "/events", body, {**signed, "ce-id": "forged"})[0] == 401
    assert of(store, "forged") is None


def test_an_approval_starts_a_release(server, store, kfp):
    artifacts = {name: f"s3://ifas/runs/{name}" for name in ("record", "model", "evaluation", "lineage")}
    approval = event("approval", source="https://review.example.org", type=APPROVED)
    approval["data"] = {"candidate": "0123456789ab", **artifacts}
    assert server.send(approval, OTHER_KEY)[0] == 202
    (run,) = kfp.runs_named(in_state(store, "approval", "started")["run"])
    assert run.runtime_config.parameters["candidate"] == artifacts["record"]
    assert run.pipeline_spec["pipeline_spec"]["pipelineInfo"]["name"] == "release"


def test_the_same_event_again_starts_nothing(server, store, kfp):
    again = event("again", dataset="again")
    kinds = [json.loads(server.send(again)[1])["kept"] for _ in range(3)]
    assert kinds == ["new", "duplicate", "duplicate"]
    found = in_state(store, "again", "started")
    assert found["repeats"] == 2
    assert len(kfp.runs_named(found["run"])) == 1


def test_events_out_of_order(server, store):
    newer, older = datetime.now(UTC), datetime.now(UTC) - timedelta(hours=1)
    server.send(event("newer", dataset="order", time=newer.isoformat()))
    in_state(store, "newer", "started")
    assert server.send(event("older", dataset="order", time=older.isoformat()))[0] == 202
    assert "newer" in in_state(store, "older", "skipped")["decisions"][-1]["reason"]


def test_a_second_event_in_the_cool_down_waits(server, store, kfp):
    server.send(event("cool-1", dataset="cool"))
    in_state(store, "cool-1", "started")
    server.send(event("cool-2", dataset="cool"))
    found = in_state(store, "cool-2", "held")
    assert "cool-down" in found["decisions"][-1]["reason"]
    assert not found["run"]


def test_a_type_without_a_rule_is_decided_on(server, store):
    drift = event("drift", type=DRIFT)
    drift["data"] |= {"measure": "score-psi", "value": 0.4, "bound": 0.2}
    assert server.send(drift)[0] == 202
    assert "no rule" in of(store, "drift")["decisions"][-1]["reason"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type": "dev.ifas.unknown"}, "may not send"),
        ({"source": "https://review.example.org"}, "may not send"),
        ({"type": APPROVED}, "may not send"),
    ],
)
def test_a_sender_sends_its_own_only(server, store, changes, said):
    status, text = server.send(event("foreign", **changes))
    assert status == 403
    assert said in text
    assert of(store, "foreign") is None


@pytest.mark.parametrize(
    "revision", ["v1 --set train.steps=1", "v1\ntrain: {steps: 1}", "--upload-pack=touch x", "[[RunUUID]]", "a;b", 7]
)
def test_a_value_that_injects_is_refused_and_the_decision_kept(server, store, kfp, revision):
    before = len(kfp.runs)
    id = f"inject-{abs(hash(str(revision)))}"
    status, text = server.send(event(id, revision=revision))
    assert status == 422
    assert "revision" in text
    assert of(store, id) is None
    assert any(one["id"] == id for one in store.listed()["refused"])
    assert len(kfp.runs) == before


def test_an_unsigned_event_and_one_of_a_stranger(server, store):
    body = json.dumps(event("stranger")).encode()
    kind = {"content-type": "application/cloudevents+json"}
    assert server.request("POST", "/events", body, kind)[0] == 401
    assert server.request("POST", "/events", body, {**kind, **sign(kind, body, b"s" * 32)})[0] == 401
    signed = {**kind, **sign(kind, body, KEY)}
    assert server.request("POST", "/events", body.replace(b"v1", b"v2"), signed)[0] == 401
    assert of(store, "stranger") is None


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_replayed_request_and_one_of_a_wrong_clock(server, store, minutes):
    status, text = server.send(event("replayed"), at=datetime.now(UTC) + timedelta(minutes=minutes))
    assert status == 401
    assert "timestamp" in text
    assert of(store, "replayed") is None


def test_a_clock_that_is_ahead(server, store):
    ahead = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()
    assert server.send(event("ahead", time=ahead))[0] == 422
    # Sent again with the right time, it is taken.
    assert server.send(event("ahead", dataset="ahead"))[0] == 202


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        ("text/plain", {}),
        ("application/json", {}),
        ("application/cloudevents-batch+json", {}),
        ("application/cloudevents+json", {"ce-id": "both"}),
        ("", {}),
    ],
)
def test_a_wrong_content_type(server, kind, headers):
    assert server.send(event("kind"), **{"content-type": kind}, **headers)[0] == 415


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 60_000])
def test_a_body_that_is_no_event(server, body):
    headers = {"content-type": "application/cloudevents+json"}
    signed = {**headers, **sign(headers, body.decode("latin-1").encode(), KEY)}
    assert server.request("POST", "/events", body, signed)[0] in (400, 401)


def test_a_huge_body_declared_or_not(server):
    assert server.send(b"x" * (MAX_BODY_BYTES + 1))[0] == 413
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as client:
        client.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        answer = b""
        try:
            for _ in range(200):
                client.sendall(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        except OSError:
            pass  # it was closed on us
        try:
            answer = client.recv(4096)
        except OSError:
            pass
    assert not answer or b" 413 " in answer
    assert server.request("GET", "/livez")[0] == 200


def test_a_slow_body_is_cut_and_holds_nobody_up(server):
    parts = urlsplit(server.url)
    clients = [socket.create_connection((parts.hostname, parts.port), timeout=BODY_SECONDS + 20) for _ in range(50)]
    for client in clients:
        client.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    began = time.monotonic()
    assert server.send(event("quick", dataset="quick"))[0] == 202
    assert time.monotonic() - began < BODY_SECONDS / 2
    for client in clients:
        assert b" 408 " in client.recv(4096)
        client.close()


def test_a_client_that_sends_too_much_waits_and_others_do_not(kfp, tmp_path):
    file = write_file(tmp_path / "trigger.yaml", clients={"per_second": 0.5, "burst": 3})
    with trigger_server(file, f"sqlite:///{tmp_path / 'trigger.db'}", kfp.url, tmp_path / "log") as server:
        address = urlsplit(server.url)

        def post(client):
            connection = http.client.HTTPConnection(
                address.hostname, address.port, timeout=30, source_address=(client, 0)
            )
            connection.request("POST", "/events", b"{}", {"content-type": "application/cloudevents+json"})
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer.status, answer.headers.get("retry-after")

        # Unsigned ones count, too: what is limited is what a stranger can cost.
        assert [post("127.0.0.1")[0] for _ in range(3)] == [401] * 3
        status, wait = post("127.0.0.1")
        assert (status, int(wait) in (1, 2)) == (429, True)
        assert post("127.0.0.2")[0] == 401
        time.sleep(int(wait) + 0.2)
        assert post("127.0.0.1")[0] == 401


def test_other_paths_and_methods(server):
    assert server.request("GET", "/events")[0] == 405
    assert server.request("GET", "/")[0] == 404
    assert server.request("GET", "/livez") == (200, "ok")
    assert server.request("GET", "/readyz") == (200, "ok")


def test_a_second_service_on_the_same_database_does_not_start(server, kfp, place):
    with (
        pytest.raises(RuntimeError, match="another process acts on trigger"),
        trigger_server(place / "trigger.yaml", f"sqlite:///{place / 'trigger.db'}", kfp.url, place / "second.log"),
    ):
        pass


def test_kfp_away_then_back(kfp, place):
    url = f"sqlite:///{place / 'away.db'}"
    kept = Store(url)
    with trigger_server(place / "trigger.yaml", url, kfp.url, place / "away.log") as server:
        kfp.down = 503
        try:
            assert server.send(event("away", dataset="away"))[0] == 202
            found = eventually(lambda: (one := of(kept, "away")) and one["attempts"] and one, 120)
            assert (found["state"], found["run_id"]) == ("starting", "")
            assert "503" in found["decisions"][-1]["reason"]
        finally:
            kfp.down = 0
        found = in_state(kept, "away", "started")
        assert len(kfp.runs_named(found["run"])) == 1
    kept.close()


def test_a_kill_between_the_start_and_its_record_starts_no_second_run(kfp, place):
    """KFP takes the run, the answer is lost, and the service is killed: the next one finds the run by its name."""
    url = f"sqlite:///{place / 'killed.db'}"
    kept = Store(url)
    kfp.lose_answers = 1
    with trigger_server(place / "trigger.yaml", url, kfp.url, place / "killed.log") as server:
        assert server.send(event("killed", dataset="killed"))[0] == 202
        found = eventually(lambda: (one := of(kept, "killed")) and one["run"] and one)
        eventually(lambda: kfp.runs_named(found["run"]))
        server.kill()
    assert of(kept, "killed")["state"] == "starting"
    with trigger_server(place / "trigger.yaml", url, kfp.url, place / "killed.log"):
        found = in_state(kept, "killed", "started")
    assert [run.run_id for run in kfp.runs_named(found["run"])] == [found["run_id"]]
    kept.close()


def test_it_ends_when_it_loses_the_right_to_start_runs(kfp, tmp_path):
    with postgres_server() as postgres:
        url = postgres.fresh("trigger")
        with trigger_server(write_file(tmp_path / "t.yaml"), url, kfp.url, tmp_path / "log") as running:
            store = Store(url)
            with store._database.writing() as session:
                ended = session.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = :lock"
                    ),
                    {"lock": TRIGGER.lock + 1},
                ).all()
            store.close()
            assert len(ended) == 1
            running.process.wait(60)
        assert "right to act" in (tmp_path / "log").read_text()


def test_it_ends_when_it_is_told_to(kfp, place):
    url = f"sqlite:///{place / 'ended.db'}"
    with trigger_server(place / "trigger.yaml", url, kfp.url, place / "ended.log") as server:
        assert server.send(event("last"))[0] == 202
        server.process.terminate()
        server.process.wait(timeout=40)
    assert of(Store(url), "last") is not None


def test_the_command_line(server, store, place, monkeypatch, kfp):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("IFAS_TRIGGER_STORE", f"sqlite:///{place / 'trigger.db'}")

    def ifas(*arguments):
        result = CliRunner().invoke(app, ["trigger", *arguments])
        assert result.exit_code == 0, result
        return result.output

    (place / "event.json").write_text(json.dumps(event("by-hand", dataset="by-hand")))
    sending = (
        "send",
        str(place / "event.json"),
        "--url",
        f"{server.url}/events",
        "--secret",
        "TRIGGER_SECRET_REGISTRY",
    )
    assert json.loads(ifas(*sending)) == {"id": "by-hand", "kept": "new"}
    first = in_state(store, "by-hand", "started")["run"]
    assert "by-hand" in ifas("list")
    listed = json.loads(ifas("list", "--json", "--state", "started"))
    assert "by-hand" in [one["id"] for one in listed["events"]]
    assert {one["state"] for one in listed["events"]} == {"started"}
    ifas("replay", "by-hand", "--reason", "the node was lost")
    again = eventually(
        lambda: (one := of(store, "by-hand")) and one["state"] == "started" and one["run"] != first and one
    )
    assert kfp.runs_named(again["run"])
    assert "the node was lost" in str(again["decisions"])
    checked = ifas("serve", str(place / "trigger.yaml"), "--endpoint", kfp.url, "--dry-run")
    assert "2 senders, 2 rules" in checked


def test_it_does_not_start_with_a_rule_whose_pods_would_have_no_image(place, kfp, monkeypatch):
    for name, value in {**SECRETS, "IFAS_IMAGE": ""}.items():
        monkeypatch.setenv(name, value)
    file = write_file(place / "no-image.yaml", set={"cluster.image": ""})
    result = CliRunner().invoke(app, ["trigger", "serve", str(file), "--endpoint", kfp.url])
    assert isinstance(result.exception, ConfigError)
    assert "rules.new-data: cluster.image is empty" in result.exception.what


def test_the_log_holds_no_secret(server):
    log = server.log.read_text()
    assert "refused 401" in log
    assert not any(secret.removeprefix("whsec_") in log for secret in SECRETS.values())
