"""What happens to a start that does not succeed."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from ifas.core.errors import ConfigError, LaunchError, MachineError
from ifas.trigger import dispatch
from ifas.trigger.dispatch import Dispatcher
from ifas.trigger.rules import load
from ifas.trigger.store import Store
from tests.servers_trigger import DRIFT, write_file
from tests.unit.trigger.test_store import NOW, arrival


@pytest.fixture
def store(tmp_path):
    kept = Store(f"sqlite:///{tmp_path / 'trigger.db'}")
    yield kept
    kept.close()


@pytest.fixture
def trigger(tmp_path):
    return load(write_file(tmp_path / "trigger.yaml"))


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ConfigError("KFP refused it"), "failed"),
        (LaunchError("KFP is away"), "starting"),
        (MachineError("the disk is full"), "starting"),
        (KeyError("a bug"), "starting"),
    ],
)
def test_a_start_that_fails_does_not_hold_up_the_others(store, trigger, error, state):
    def starter(_pipeline, name, config, _arguments):
        if config.ingest.dataset == "bad":
            raise error
        return f"kfp-{name}"

    store.keep([arrival("a", dataset="bad"), arrival("b", dataset="good")], trigger, NOW)
    assert Dispatcher(store, trigger, starter).pass_once()
    found = {one["id"]: one for one in store.listed()["events"]}
    assert found["b"]["state"] == "started"
    assert found["a"]["state"] == state
    assert str(error.args[0]) in found["a"]["decisions"][-1]["reason"]
    assert (found["a"]["due"] > found["a"]["received"]) == (state == "starting")


def test_what_is_too_old_is_deleted_when_it_starts_and_then_once_a_day(store, trigger):
    long_ago = datetime.now(UTC) - timedelta(days=trigger.keep_days + 1)

    def old(id):
        store.keep([arrival(id, kind=DRIFT)], trigger, long_ago)  # for which there is no rule

    old("a")
    dispatcher = Dispatcher(store, trigger, lambda *_: "never")
    dispatcher.pass_once()
    assert store.listed()["events"] == []
    old("b")
    dispatcher.pass_once()
    assert len(store.listed()["events"]) == 1, "it is not looked for in every pass"
    Dispatcher(store, trigger, lambda *_: "never").pass_once()
    assert store.listed()["events"] == []


def test_a_configuration_that_can_no_longer_be_made(store, trigger):
    store.keep([arrival("a")], trigger, NOW)
    broken = trigger.rules["new-data"].model_copy(update={"config": "gone.yaml"})
    now_broken = trigger.model_copy(update={"rules": {"new-data": broken}})
    Dispatcher(store, now_broken, lambda *_: "never").pass_once()
    (found,) = store.listed()["events"]
    assert found["state"] == "failed"
    assert "gone.yaml" in found["decisions"][-1]["reason"]


def test_a_start_that_never_ends_is_told(store, trigger, monkeypatch):
    begun, free = threading.Event(), threading.Event()

    def starter(*_):
        begun.set()
        free.wait(30)
        return "kfp-1"

    store.keep([arrival("a")], trigger, NOW)
    dispatcher = Dispatcher(store, trigger, starter)
    assert "ended" in dispatcher.trouble()
    dispatcher.start()
    assert begun.wait(30)
    assert not dispatcher.trouble()
    monkeypatch.setattr(dispatch, "STUCK_SECONDS", 0.0)
    assert "no pass" in dispatcher.trouble()
    dispatcher.stop()
    free.set()
    dispatcher.join(30)
