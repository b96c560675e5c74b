"""What is kept, on SQLite and on PostgreSQL."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from ifas.core.errors import DataError, LaunchError
from ifas.trigger import events
from ifas.trigger.rules import load
from ifas.trigger.store import Arrival, Store
from ifas.trigger.tables import text_of, time_of
from tests.servers_pg import postgres_server
from tests.servers_trigger import DRIFT, REVISED, SOURCE, write_file

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def postgres():
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'trigger.db'}"
    return request.getfixturevalue("postgres").fresh("trigger")


@pytest.fixture
def store(url):
    kept = Store(url)
    yield kept
    kept.close()


@pytest.fixture
def trigger(tmp_path):
    return load(write_file(tmp_path / "trigger.yaml", runs_per_day=3))


def arrival(id, dataset="faces", time=NOW, kind=REVISED):
    envelope = events.Envelope(id=id, source=SOURCE, type=kind, time=time)
    return Arrival("registry", envelope, events.Event(envelope, events.DatasetRevised(dataset=dataset, revision="v1")))


def states(store):
    return {one["id"]: one["state"] for one in store.listed()["events"]}


def test_an_event_is_kept_once(store, trigger):
    assert store.keep([arrival("a"), arrival("a"), arrival("b")], trigger, NOW) == ["new", "duplicate", "new"]
    assert store.keep([arrival("b"), arrival("c")], trigger, NOW) == ["duplicate", "new"]
    found = {one["id"]: one["repeats"] for one in store.listed()["events"]}
    assert found == {"a": 1, "b": 1, "c": 0}


def test_what_is_refused_is_in_the_log_and_may_come_again_corrected(store, trigger):
    envelope = events.Envelope(id="a", source=SOURCE, type=REVISED, time=NOW)
    for reasons in (["data: revision", "data: once more"], ["data: again"]):
        arrivals = [Arrival("registry", envelope, None, reason) for reason in reasons]
        assert store.keep(arrivals, trigger, NOW) == ["refused"] * len(reasons)
    assert store.keep([arrival("a")], trigger, NOW) == ["new"]
    assert [one["reason"] for one in store.listed()["refused"]] == ["data: revision"]


def test_an_event_without_a_rule_is_decided_at_once(store, trigger):
    store.keep([arrival("a", kind=DRIFT)], trigger, NOW)
    (found,) = store.listed()["events"]
    assert (found["state"], found["decisions"][0]["reason"]) == ("skipped", f"no rule for {DRIFT}")


def test_a_run_its_cool_down_and_the_next_run(store, trigger):
    store.keep([arrival("a"), arrival("b", time=NOW - HOUR)], trigger, NOW)
    assert store.decide(trigger, NOW) == 2
    assert states(store) == {"a": "starting", "b": "skipped"}
    (start,) = store.starts(NOW)
    store.started(start, "kfp-1", NOW)
    assert store.starts(NOW) == []

    later = NOW + HOUR / 2
    store.keep([arrival("c", time=later)], trigger, later)
    store.decide(trigger, later)
    assert states(store)["c"] == "held"
    assert store.decide(trigger, later) == 0, "what is held is not looked at before it is due"
    store.decide(trigger, NOW + HOUR)
    assert states(store)["c"] == "starting"
    (found,) = [one for one in store.listed()["events"] if one["id"] == "c"]
    assert [one["state"] for one in found["decisions"]] == ["held", "starting"]
    assert found["run"].startswith("retrain-")
    assert found["run"] != start.run


def test_the_budget_is_of_all_things_of_a_rule(store, trigger):
    store.keep([arrival(f"e{n}", dataset=f"d{n}") for n in range(5)], trigger, NOW)
    store.decide(trigger, NOW)
    assert sorted(states(store).values()) == ["held"] * 2 + ["starting"] * 3
    store.decide(trigger, NOW + timedelta(days=1))
    assert sorted(states(store).values()) == ["starting"] * 5


def test_more_events_than_one_pass_takes(store, trigger):
    many = [arrival(f"e{n}", time=NOW - timedelta(seconds=n)) for n in range(1200)]
    for at in range(0, 1200, 300):
        store.keep(many[at : at + 300], trigger, NOW)
    while store.decide(trigger, NOW):
        pass
    found = list(states(store).values())
    assert len(store.listed(limit=5000)["events"]) == 1200
    assert found.count("starting") + found.count("skipped") == len(found)
    assert [start.run for start in store.starts(NOW)] != []
    assert len(store.starts(NOW)) == 1


def test_a_start_that_fails_is_tried_again_when_it_is_due(store, trigger):
    store.keep([arrival("a")], trigger, NOW)
    store.decide(trigger, NOW)
    (start,) = store.starts(NOW)
    for attempt in (1, 2):
        store.postponed(start, "KFP is away", NOW + attempt * HOUR, NOW)
    assert store.starts(NOW + HOUR) == []
    assert [again.run for again in store.starts(NOW + 2 * HOUR)] == [start.run]
    (found,) = store.listed()["events"]
    assert [one["reason"] for one in found["decisions"]].count("KFP is away") == 1
    store.failed(start, "KFP refused", NOW)
    assert states(store) == {"a": "failed"}


def test_a_replay_is_another_run(store, trigger):
    store.keep([arrival("a")], trigger, NOW)
    with pytest.raises(DataError, match="not decided yet"):
        store.replay("a", None, "again", NOW)
    store.decide(trigger, NOW)
    (start,) = store.starts(NOW)
    store.started(start, "kfp-1", NOW)
    assert store.replay("a", None, "the data was repaired", NOW) == SOURCE
    store.decide(trigger, NOW)
    (again,) = store.starts(NOW)
    assert again.run != start.run
    assert "the data was repaired" in str(store.listed())
    with pytest.raises(DataError, match="not one event b"):
        store.replay("b", None, "again", NOW)


def test_a_replay_is_paid_beside_the_run_before_it(store, trigger):
    store.keep([arrival("a")], trigger, NOW)
    for replay in range(4):
        if replay:
            store.replay("a", None, "again", NOW)
        store.decide(trigger, NOW)
        for start in store.starts(NOW):
            store.started(start, f"kfp-{replay}", NOW)
    assert states(store) == {"a": "held"}, "the budget is three runs"


def test_a_run_counts_for_the_cool_down_while_its_event_s_replay_waits(store, tmp_path):
    trigger = load(write_file(tmp_path / "one.yaml", runs_per_day=1, cooldown_hours=30))
    store.keep([arrival("a")], trigger, NOW)
    store.decide(trigger, NOW)
    (start,) = store.starts(NOW)
    store.started(start, "kfp-1", NOW)
    store.replay("a", None, "again", NOW + HOUR)
    store.decide(trigger, NOW + HOUR)
    assert states(store) == {"a": "held"}, "the budget is spent"
    # A day after the run, the budget is free again, but not the cool-down.
    late = NOW + 25 * HOUR
    store.keep([arrival("b", time=late), arrival("old", time=NOW - HOUR)], trigger, late)
    store.decide(trigger, late)
    assert states(store) == {"a": "starting", "b": "held", "old": "skipped"}
    (held,) = [one for one in store.listed()["events"] if one["id"] == "b"]
    assert "cool-down" in held["decisions"][-1]["reason"]


def test_an_event_waits_for_the_cool_down_of_a_run_whose_replay_is_held(store, tmp_path):
    """The replay is not what holds it: were the earlier run forgotten, it would start at once."""
    trigger = load(write_file(tmp_path / "two.yaml", runs_per_day=1, cooldown_hours=48))
    store.keep([arrival("a")], trigger, NOW)
    store.decide(trigger, NOW)
    (start,) = store.starts(NOW)
    store.started(start, "kfp-1", NOW)
    # Another thing spends the budget of the next day, so that the replay waits still.
    store.keep([arrival("other", dataset="hands", time=NOW)], trigger, NOW + 24 * HOUR)
    store.decide(trigger, NOW + 24 * HOUR)
    store.replay("a", None, "again", NOW + 25 * HOUR)
    store.keep([arrival("b", time=NOW + 25 * HOUR)], trigger, NOW + 25 * HOUR)
    store.decide(trigger, NOW + 25 * HOUR)
    reasons = {one["id"]: one["decisions"][-1]["reason"] for one in store.listed()["events"]}
    assert reasons["a"].startswith("budget")
    assert reasons["b"].startswith("cool-down since 2026-05-04T12:00")


def test_a_run_that_kfp_refused_is_no_reason_to_wait(store, trigger):
    store.keep([arrival("a")], trigger, NOW)
    store.decide(trigger, NOW)
    (start,) = store.starts(NOW)
    store.failed(start, "KFP refused", NOW)
    store.keep([arrival("b", time=NOW - HOUR)], trigger, NOW)
    store.decide(trigger, NOW)
    assert states(store) == {"a": "failed", "b": "starting"}


def test_what_is_old_is_deleted_and_starts_nothing_when_it_comes_again(store, trigger):
    def ran(id, at):
        store.keep([arrival(id, time=at)], trigger, at)
        store.decide(trigger, at)
        (start,) = store.starts(at)
        store.started(start, f"kfp-{id}", at)

    ran("first", NOW)
    ran("second", NOW + 2 * HOUR)
    store.keep([arrival("norule", kind=DRIFT, time=NOW)], trigger, NOW)
    store.keep([arrival("late", time=NOW - HOUR)], trigger, NOW + 3 * HOUR)
    store.decide(trigger, NOW + 3 * HOUR)
    envelope = events.Envelope(id="wrong", source=SOURCE, type=REVISED, time=NOW)
    store.keep([Arrival("registry", envelope, None, "data: revision")], trigger, NOW)
    waiting = NOW + 2.5 * HOUR
    store.keep([arrival("waits", time=waiting)], trigger, waiting)
    store.decide(trigger, waiting)
    store.keep([arrival("new", dataset="hands", time=NOW)], trigger, NOW + 5 * HOUR)

    assert store.prune(NOW) == 0
    assert store.prune(NOW + 4 * HOUR) == 4
    assert states(store) == {"second": "started", "waits": "held", "new": "new"}
    assert store.listed()["refused"] == []
    assert store.prune(NOW + 4 * HOUR) == 0
    later = NOW + 6 * HOUR
    assert store.keep([arrival("first", time=NOW)], trigger, later) == ["new"], "it is forgotten"
    store.decide(trigger, later)
    assert states(store)["first"] == "skipped"


def test_a_thousand_old_events_are_deleted(store, trigger):
    many = [arrival(f"e{n}", time=NOW - timedelta(seconds=n)) for n in range(1200)]
    for at in range(0, 1200, 300):
        store.keep(many[at : at + 300], trigger, NOW)
    while store.decide(trigger, NOW):
        pass
    (start,) = store.starts(NOW)
    store.started(start, "kfp", NOW)
    assert store.prune(NOW + HOUR) == 1199


def test_a_rule_that_is_gone(store, trigger):
    store.keep([arrival("a")], trigger, NOW)
    store.decide(trigger.model_copy(update={"rules": {}}), NOW)
    assert states(store) == {"a": "skipped"}


def test_a_row_that_can_t_be_read_holds_up_no_other(store, trigger):
    store.keep([arrival("a"), arrival("b")], trigger, NOW)
    with store._database.writing() as session:
        session.execute(text("UPDATE trigger_events SET time = '1-01-01T00:00:00.000000Z' WHERE event_id = 'a'"))
    store.decide(trigger, NOW)
    assert states(store) == {"a": "failed", "b": "starting"}


def test_times_sort_as_text():
    times = [datetime(year, 1, 1, tzinfo=UTC) for year in (1, 999, 2026)]
    assert sorted(map(text_of, times)) == list(map(text_of, times))
    assert [time_of(text_of(time)) for time in times] == times


def test_only_one_process_may_start_runs(store, url):
    other = Store(url)
    with store.alone(), pytest.raises(LaunchError, match="another process"), other.alone():
        pass
    with other.alone():
        pass
    other.close()


def test_two_writers_lose_nothing_and_keep_nothing_twice(store, url, trigger):
    other = Store(url)
    answers = []

    def keep(into):
        for n in range(40):
            answers.extend(into.keep([arrival(f"e{n}"), arrival(f"{id(into)}-{n}")], trigger, NOW))

    threads = [threading.Thread(target=keep, args=(into,)) for into in (store, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert (answers.count("new"), answers.count("duplicate")) == (120, 40)
    assert len(store.listed(limit=1000)["events"]) == 120


def test_sqlite_waits_for_the_disk_at_every_commit(tmp_path, trigger):
    store = Store(f"sqlite:///{tmp_path / 'trigger.db'}")
    with store._database.reading() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert session.execute(text("PRAGMA synchronous")).scalar() == 2
    store.close()
