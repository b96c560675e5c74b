"""`ifas approve` tells a real trigger, in processes of their own: away, killed, listened to; and a release starts."""

import base64
import hashlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from ifas.promotion.ledger import Ledger
from ifas.trigger.store import Store
from tests.servers_events import receiver
from tests.servers_kfp import kfp_server
from tests.servers_trigger import FILE, SECRETS, trigger_server
from tests.unit.promotion.test_ledger import POLICY, submit

pytestmark = pytest.mark.slow

STATES = ("pending", "refused", "approved", "rejected", "superseded", "revoked", "expired")
PLACES = {name: f"s3://ifas/run/{name}" for name in ("record", "model", "evaluation", "lineage")}
FACTS = {"artifacts": PLACES, "policy": POLICY.model_dump(mode="json")}


class Machine:
    """A ledger, a trigger's file and database, and the command line in processes of its own."""

    def __init__(self, place, kfp):
        self.place, self.kfp = place, kfp
        self.ledger = f"sqlite:///{place / 'ledger.db'}"
        self.store = Store(f"sqlite:///{place / 'trigger.db'}")
        file = deepcopy(FILE)
        file["senders"]["review"] |= {
            "source": "ifas/ledger",
            "types": [f"dev.ifas.candidate.{state}" for state in STATES],
        }
        file["rules"]["approved"]["cooldown_hours"] = 0
        (place / "trigger.yaml").write_text(yaml.safe_dump(file))

    def gated(self, seed="a"):
        """A candidate that its gate has passed, with the events off."""
        ledger = Ledger(self.ledger)
        found = submit(
            ledger,
            seed,
            evidence={"model": hashlib.sha256(seed.encode()).hexdigest(), "champion": "", "policy": POLICY.sha256},
            facts=FACTS,
        )
        ledger.close()
        return found.id

    def trigger(self, port=0):
        return trigger_server(
            self.place / "trigger.yaml",
            f"sqlite:///{self.place / 'trigger.db'}",
            self.kfp.url,
            self.place / "log",
            port=port,
        )

    def start(self, url, *arguments, secret=SECRETS["TRIGGER_SECRET_REVIEW"]):
        ifas = str(Path(sys.executable).with_name("ifas"))
        environment = {**os.environ, "IFAS_LEDGER": self.ledger, "IFAS_EVENTS_URL": url, "IFAS_EVENTS_SECRET": secret}
        return subprocess.Popen(
            [ifas, *arguments], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def ifas(self, url, *arguments, **changes):
        """(exit code, standard output, standard error)."""
        process = self.start(url, *arguments, **changes)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def approve(self, url, candidate, **changes):
        return self.ifas(url, "approve", candidate, "--reason", "good", "-c", "tiny", **changes)

    def state(self, candidate):
        ledger = Ledger(self.ledger)
        found = ledger.get(candidate).state
        ledger.close()
        return found

    def kept(self):
        """Events that the trigger has, oldest first."""
        return self.store.listed()["events"][::-1]

    def eventually(self, check):
        until = time.monotonic() + 60
        while not (found := check()):
            assert time.monotonic() < until, "it did not come about"
            time.sleep(0.05)
        return found

    def started(self):
        """The one run that was started."""
        self.eventually(lambda: any(one["state"] == "started" for one in self.kept()))
        (run,) = self.kfp.runs.values()
        return run


@pytest.fixture
def machine(tmp_path):
    with kfp_server() as kfp:
        made = Machine(tmp_path, kfp)
        yield made
        made.store.close()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def test_an_approval_starts_the_release_of_that_run(machine):
    candidate = machine.gated()
    with machine.trigger() as server:
        code, out, err = machine.approve(f"{server.url}/events", candidate)
        assert (code, err) == (0, "")
        assert f"{candidate} is approved" in out
        run = machine.started()
    (kept,) = machine.kept()
    assert (kept["type"], kept["about"], kept["source"]) == ("dev.ifas.candidate.approved", candidate, "ifas/ledger")
    assert run.pipeline_spec["pipeline_spec"]["pipelineInfo"]["name"] == "release"
    wanted = {"candidate": "record", "model": "model", "evaluation": "evaluation", "lineage": "lineage"}
    assert {name: run.runtime_config.parameters[name] for name in wanted} == {n: PLACES[p] for n, p in wanted.items()}


def test_every_kind_of_decision_reaches_the_trigger(machine):
    first, second, third = machine.gated("a"), machine.gated("b"), machine.gated("c")
    with machine.trigger() as server:
        url = f"{server.url}/events"
        assert machine.approve(url, first)[0] == 0
        # Judged again, since there is a champion by now.
        code, _, err = machine.approve(url, second)
        assert (code, "judged again" in err) == (6, True)
        assert machine.ifas(url, "reject", third, "--reason", "no", "-c", "tiny")[0] == 0
        assert machine.ifas(url, "revoke", first, "--reason", "no", "-c", "tiny")[0] == 0
        machine.started()
    told = [(one["about"], one["type"].rpartition(".")[2]) for one in machine.kept()]
    assert told[0] == (first, "approved")
    assert [state for _, state in told[1:3]] == ["pending", "superseded"]
    assert told[2:] == [(second, "superseded"), (third, "rejected"), (first, "revoked")]
    assert machine.store.listed()["refused"] == []


def test_a_receiver_that_was_away_gets_it_once(machine):
    candidate, port = machine.gated(), free_port()
    url = f"http://127.0.0.1:{port}/events"
    code, _, err = machine.approve(url, candidate)
    assert code == 0
    assert "the decision stands" in err
    assert "ifas ledger announce" in err
    assert machine.state(candidate) == "approved"
    code, _, err = machine.ifas(url, "ledger", "announce", "-c", "tiny")
    assert code == 7
    assert "can't be reached" in err
    with machine.trigger(port):
        code, out, _ = machine.ifas(url, "ledger", "announce", "-c", "tiny", "--dry-run", "--json")
        (left,) = json.loads(out)
        assert (code, left["state"], left["event"]["subject"]) == (0, "left", candidate)
        assert machine.kept() == []
        code, out, _ = machine.ifas(url, "ledger", "announce", "-c", "tiny")
        assert (code, out.split()[0]) == (0, "sent")
        code, out, _ = machine.ifas(url, "ledger", "announce", "-c", "tiny")
        assert (code, out) == (0, "nothing is left to send\n")
        machine.started()
    (kept,) = machine.kept()
    assert kept["repeats"] == 0
    # From before events were switched on: only where it is asked for. The trigger keeps it, and no rule is for it.
    with machine.trigger(port):
        assert machine.ifas(url, "ledger", "announce", "-c", "tiny", "--all")[0] == 0
    assert [one["type"] for one in machine.kept()][1:] == ["dev.ifas.candidate.pending"]
    assert len(machine.kfp.runs) == 1


@pytest.mark.parametrize("taken", [False, True])
def test_a_kill_between_the_decision_and_its_mark(machine, taken):
    """Killed while it waits for an answer: before the trigger has the event, or after it, when it comes twice."""
    candidate = machine.gated()
    with machine.trigger() as server, receiver() as between:
        # A relay that sends the event on, or not, and never answers.
        between.onward, between.lose, between.silent = server.url, not taken, True
        process = machine.start(between.url, "approve", candidate, "--reason", "good", "-c", "tiny")
        machine.eventually(lambda: between.seen)
        assert machine.state(candidate) == "approved"
        process.kill()
        process.communicate()
        with sqlite3.connect(machine.place / "ledger.db") as connection:
            assert connection.execute("SELECT mark FROM announced").fetchall() == [("on",)]
        url = f"{server.url}/events"
        code, out, _ = machine.ifas(url, "ledger", "announce", "-c", "tiny")
        assert (code, out.split()[0]) == (0, "sent")
        assert machine.ifas(url, "ledger", "announce", "-c", "tiny")[1] == "nothing is left to send\n"
        machine.started()
    (kept,) = machine.kept()
    assert kept["repeats"] == int(taken)


def test_a_wrong_secret_is_noted_and_the_decision_stands(machine):
    candidate = machine.gated()
    wrong = "whsec_" + base64.b64encode(b"w" * 32).decode()
    with machine.trigger() as server:
        code, _, err = machine.approve(f"{server.url}/events", candidate, secret=wrong)
        assert code == 0
        assert "answered 401" in err
        assert wrong not in err
        assert machine.state(candidate) == "approved"
        assert machine.kept() == []
        assert machine.ifas(f"{server.url}/events", "ledger", "announce", "-c", "tiny")[0] == 0
    assert len(machine.kept()) == 1


def test_no_secret_is_refused_before_anything_is_decided(machine):
    candidate = machine.gated()
    code, _, err = machine.approve("http://127.0.0.1:9/events", candidate, secret="")
    assert code == 2
    assert "IFAS_EVENTS_SECRET is not set" in err
    assert machine.state(candidate) == "pending"


def test_an_event_that_was_changed_on_its_way_is_refused(machine):
    candidate = machine.gated()
    with machine.trigger() as server, receiver() as between:
        between.onward, between.alter = server.url, (b"s3://ifas/run/model", b"s3://evil/run/model")
        code, _, err = machine.approve(between.url, candidate)
        assert (code, "answered 401" in err) == (0, True)
        assert between.seen
        assert machine.kept() == []
    assert machine.kfp.runs == {}
