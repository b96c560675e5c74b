"""Decisions told to a receiver over real HTTP: what is said, what is tried again, and what is never sent."""

import base64
import hashlib
import sqlite3
from datetime import UTC, datetime

import pytest

from ifas.core.config import load
from ifas.core.errors import ConfigError, DataError, GateError
from ifas.core.files import read_json, write_json
from ifas.promotion.again import judge_again, today
from ifas.promotion.approval import approval_of
from ifas.promotion.ledger import Ledger
from ifas.promotion.policy import Policy, Rule
from ifas.promotion.products import Products
from ifas.steps import announce as module
from ifas.steps.announce import announcing, send
from ifas.steps.preflight import _events
from ifas.trigger import events
from tests.servers_events import KEY, receiver
from tests.unit.promotion.test_ledger import POLICY, submit

PLACES = {name: f"s3://ifas/run/{name}" for name in ("model", "evaluation", "lineage", "record", "captions")}
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "PAUSES", (0, 0, 0))
    monkeypatch.setenv(module.SECRET_ENV, SECRET)


@pytest.fixture
def hook():
    with receiver() as server:
        yield server


@pytest.fixture
def config(hook, tmp_path):
    return load("tiny", [f"gate.ledger=sqlite:///{tmp_path / 'ledger.db'}", f"gate.events={hook.url}"])


@pytest.fixture
def ledger(config):
    opened = Ledger(config.gate.ledger)
    yield opened
    opened.close()


def off(config):
    return config.model_copy(update={"gate": config.gate.model_copy(update={"events": ""})})


def gated(config, ledger, seed="a", **changes):
    places = {**PLACES, "model": f"{PLACES['model']}#sha256={'0' * 64}"}
    facts = {"artifacts": places, "policy": POLICY.model_dump(mode="json")}
    with announcing(config, ledger):
        return submit(ledger, seed, **{"facts": facts, **changes})


def test_every_state_is_told_as_the_trigger_understands_it(config, ledger, hook):
    first = gated(config, ledger, "a")
    with announcing(config, ledger):
        ledger.approve(first.id, actor="ann", reason="Bob's photo was wrong")
    refused = gated(config, ledger, "b", auc=0.1)
    second = gated(config, ledger, "c", evidence={"model": hashlib.sha256(b"c").hexdigest(), "champion": first.id})
    with announcing(config, ledger):
        ledger.approve(second.id, actor="ann", reason="better")
    with announcing(config, ledger):
        ledger.revoke(second.id, actor="ann", reason="worse")
    last = gated(config, ledger, "d")
    with announcing(config, ledger):
        ledger.reject(last.id, actor="ann", reason="no")
    assert hook.told() == [
        (first.id, "pending"),
        (first.id, "approved"),
        (refused.id, "refused"),
        (second.id, "pending"),
        (second.id, "approved"),
        (first.id, "superseded"),
        (second.id, "revoked"),
        (first.id, "approved"),
        (last.id, "pending"),
        (last.id, "rejected"),
    ]
    for (headers, said), (candidate, entry) in zip(hook.seen, ledger.decisions(), strict=True):
        assert (said["id"], said["time"], said["source"]) == (entry.hash, entry.at, "ifas/ledger")
        assert headers["webhook-id"] == f"msg_{entry.hash}"
        assert said["data"] == {
            "candidate": candidate.id,
            "product": "ifas",
            "actor": entry.actor,
            "evidence_sha256": candidate.evidence_sha256,
            **{name: PLACES[name] for name in ("record", "model", "evaluation", "lineage")},
        }
        envelope = events.Envelope.model_validate(said)
        assert events.checked(envelope, said["data"], datetime.now(UTC)).data.about == candidate.id


def test_all_states_have_a_type():
    from ifas.promotion.tables import STATES

    assert {f"{module.TYPE}{state}" for state in STATES} <= set(events.TYPES)


def test_paths_of_a_machine_are_not_told(config, ledger, hook):
    facts = {"artifacts": {"model": "/home/ann/model", "evaluation": "file:///home/ann/e", "lineage": "s3://b/l"}}
    gated(config, ledger, facts=facts)
    ((_, said),) = hook.seen
    assert "ann" not in str(said)
    assert said["data"]["lineage"] == "s3://b/l"


def test_a_server_that_fails_is_asked_again_with_the_same_message(config, ledger, hook):
    hook.answers = [503, 429]
    gated(config, ledger)
    assert len(hook.seen) == 3
    assert len({headers["webhook-id"] for headers, _ in hook.seen}) == 1
    gated(config, ledger, "b")
    assert len(hook.seen) == 4


@pytest.mark.parametrize(("status", "tries"), [(500, 3), (401, 1), (404, 1), (302, 1)])
def test_what_is_not_taken_stays_and_goes_with_the_next_oldest_first(config, ledger, hook, status, tries, capfd):
    hook.answers = [status] * tries
    first = gated(config, ledger)
    assert len(hook.seen) == tries
    said = capfd.readouterr().err
    assert f"answered {status}" in said
    assert "ifas ledger announce" in said
    assert "hunter2" not in said
    second = gated(config, ledger, "b")
    assert hook.told()[tries:] == [(first.id, "pending"), (second.id, "pending")]


@pytest.mark.parametrize(
    "url", ["http://a..b/x", "http://127.0.0.1:9/a b", "https://127.0.0.1:9/", "http://nowhere.invalid"]
)
def test_whatever_the_url_is_the_decision_stands(config, ledger, monkeypatch, url, capfd):
    monkeypatch.setenv(module.URL_ENV, url)
    assert gated(config, ledger).state == "pending"
    assert "can't be reached" in capfd.readouterr().err


def test_a_receiver_that_is_away_holds_nothing_up(config, ledger, hook, monkeypatch, capfd):
    monkeypatch.setenv(module.URL_ENV, "http://127.0.0.1:9/events")
    first = gated(config, ledger)
    with announcing(config, ledger):
        assert ledger.approve(first.id, actor="ann", reason="good").state == "approved"
    assert "2 of 2 events were not sent: http://127.0.0.1:9/events can't be reached" in capfd.readouterr().err
    monkeypatch.delenv(module.URL_ENV)
    assert [one.state for one in send(config, ledger)] == ["sent", "sent"]
    assert send(config, ledger, again=True) == []
    assert hook.told() == [(first.id, "pending"), (first.id, "approved")]


def test_an_event_that_is_refused_does_not_hold_up_the_next(config, ledger, hook):
    hook.refuse = {"dev.ifas.candidate.pending": 403}
    first = gated(config, ledger)
    with announcing(config, ledger):
        ledger.approve(first.id, actor="ann", reason="good")
    assert hook.told() == [(first.id, "pending"), (first.id, "approved")]
    # Not again by itself, but when somebody asks.
    hook.refuse = {}
    assert send(config, ledger) == []
    assert [one.state for one in send(config, ledger, again=True)] == ["sent"]
    assert hook.told()[2:] == [(first.id, "pending")]


def test_what_was_decided_before_and_where_events_are_off(config, ledger, hook):
    old = gated(off(config), ledger, "old")
    first = gated(config, ledger)
    other = gated(off(config), ledger, "other process")
    assert hook.told() == [(first.id, "pending")]
    assert [one.event["subject"] for one in send(config, ledger, dry_run=True)] == [other.id]
    gated(config, ledger, "b")
    assert hook.told()[1][0] == other.id
    assert [one.event["subject"] for one in send(config, ledger, before=True)] == [old.id]


def test_what_was_decided_on_the_way_to_an_error_is_told(config, ledger, hook):
    first, second = gated(config, ledger), gated(config, ledger, "b")
    with announcing(config, ledger):
        ledger.approve(first.id, actor="ann", reason="good")
    hook.seen.clear()
    with pytest.raises(GateError, match="again"), announcing(config, ledger):
        again = judge_again(ledger, second.id)
        raise GateError("judged again")
    assert hook.told() == [(again.id, again.state), (second.id, "superseded")]
    # The record of its gate names the old one.
    assert today(ledger, second.id) == again.id
    assert today(ledger, first.id) == first.id
    assert approval_of(ledger, today(ledger, second.id)).state == again.state


def test_a_release_of_what_was_judged_again_is_of_the_one_that_was_approved(config, ledger, tmp_path):
    """The event names the record of the gate, which names the candidate of that time."""
    from ifas.core.records import Lineage
    from ifas.steps.approve import run
    from ifas.steps.contract import Context

    first = gated(config, ledger)
    policy = Policy(
        name="stricter", rules=[*POLICY.rules, Rule(id="s", metric="auc", slice="target", min=0.6, reason="r")]
    )
    Products(config.gate.ledger).register("ifas", policy, by_policy=True, actor="ann", reason="stricter")
    again = judge_again(ledger, first.id)
    ledger.approve(again.id, actor="policy", reason="good")
    write_json(tmp_path / "candidate.json", {"candidate": first.id})
    context = Context(
        run_id="r", work=tmp_path, lineage=Lineage(run_id="r"), lineage_out=tmp_path / "l", failed=tmp_path / "f"
    )
    run(config, {"candidate": tmp_path / "candidate.json"}, {"approval": tmp_path / "approval.json"}, context)
    approval = read_json(tmp_path / "approval.json")
    assert (approval["candidate"], approval["state"]) == (again.id, "approved")


def test_nothing_is_told_of_an_altered_ledger(config, ledger, hook, tmp_path, capfd):
    first = gated(config, ledger)
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("UPDATE candidates SET state = 'approved'")
    module.announce(config, ledger)
    assert "was altered" in capfd.readouterr().err
    with pytest.raises(DataError, match="altered"):
        send(config, ledger, before=True)
    assert hook.told() == [(first.id, "pending")]


def test_an_entry_without_its_head_is_not_told(config, hook, tmp_path, monkeypatch, capfd):
    """A decision counts for nothing until the witness has it; then it is told."""
    from ifas.promotion import witness

    monkeypatch.setattr(witness, "PAUSES", (0,))
    ledger = Ledger(config.gate.ledger, str(tmp_path / "heads"))
    unwitnessed = Ledger(config.gate.ledger)
    found = gated(off(config), unwitnessed)
    gated(config, ledger, "b")
    assert "has no head" in capfd.readouterr().err
    assert hook.seen == []
    ledger.keep(ledger.without_head())
    assert [one.state for one in send(config, ledger, before=True)] == ["sent", "sent"]
    assert hook.told()[0] == (found.id, "pending")
    ledger.close()
    unwitnessed.close()


@pytest.mark.parametrize(
    ("secret", "said"), [("", "is not set"), ("whsec_!", "not base64"), ("whsec_YQ==", "fewer than 24")]
)
def test_a_receiver_without_a_usable_secret_is_refused_before_a_run(config, monkeypatch, secret, said):
    monkeypatch.setenv(module.SECRET_ENV, secret)
    with pytest.raises(ConfigError, match=said) as caught:
        _events(config, here=True)
    assert module.SECRET_ENV in str(caught.value)
    _events(config, here=False)
    _events(off(config), here=True)
    monkeypatch.setenv(module.URL_ENV, "ftp://x")
    with pytest.raises(ConfigError, match="web service"):
        _events(config, here=True)


def test_a_secret_that_is_missing_in_a_pod_holds_up_no_decision(config, ledger, hook, monkeypatch, capfd):
    monkeypatch.setenv(module.SECRET_ENV, "")
    found = gated(config, ledger)
    assert "can't be signed" in capfd.readouterr().err
    monkeypatch.setenv(module.SECRET_ENV, SECRET)
    assert [one.event["subject"] for one in send(config, ledger)] == [found.id]
