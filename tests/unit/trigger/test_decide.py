"""Which of the events on one thing starts a run, and when."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ifas.trigger.decide import DAY, Open, Past, decide

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
minutes = st.integers(-3000, 5).map(lambda n: NOW + timedelta(minutes=n))
opens = st.lists(minutes, min_size=1, max_size=8).map(
    lambda times: [Open(seq, f"e{seq}", time) for seq, time in enumerate(times)]
)


def decided(events, past=None, cooldown=HOUR, runs_per_day=3):
    found = decide(events, past or Past(), cooldown=cooldown, runs_per_day=runs_per_day, now=NOW)
    return {decision.seq: decision for decision in found}


def test_the_newest_starts_a_run_and_the_others_are_superseded():
    found = decided([Open(1, "a", NOW - HOUR), Open(2, "b", NOW), Open(3, "c", NOW - 2 * HOUR)])
    assert [found[seq].state for seq in (1, 2, 3)] == ["skipped", "starting", "skipped"]
    assert "b" in found[1].reason


def test_an_event_that_comes_late_starts_nothing():
    (found,) = decided([Open(1, "a", NOW - 2 * HOUR)], Past(newest=NOW - HOUR, last=NOW - DAY)).values()
    assert found.state == "skipped"
    assert "newer" in found.reason


def test_the_cool_down_holds_an_event_back_and_forgets_it_not():
    past = Past(newest=NOW - HOUR, last=NOW - HOUR / 2)
    (found,) = decided([Open(1, "a", NOW)], past).values()
    assert (found.state, found.due) == ("held", NOW + HOUR / 2)
    assert decide([Open(1, "a", NOW)], past, cooldown=HOUR, runs_per_day=3, now=found.due)[0].state == "starting"


def test_the_budget_is_free_again_a_day_after_the_run_that_used_it():
    past = Past(of_rule=[NOW - HOUR, NOW - 5 * HOUR, NOW - 3 * HOUR, NOW - 2 * DAY])
    (found,) = decided([Open(1, "a", NOW)], past).values()
    assert (found.state, found.due) == ("held", NOW - 5 * HOUR + DAY)


def test_what_a_person_asks_for_is_neither_too_old_nor_too_early_but_must_be_paid():
    past = Past(newest=NOW, last=NOW)
    events = [Open(1, "a", NOW - DAY, replayed=True), Open(2, "b", NOW)]
    assert decided(events, past)[1].state == "starting"
    # The newer one is not lost: it waits for the cool-down of that run.
    assert (decided(events)[2].state, decided(events)[2].due) == ("held", NOW + HOUR)
    assert decided([*events, Open(3, "c", NOW - 2 * DAY)])[3].state == "skipped"
    assert decided(events, Past(newest=NOW, last=NOW, of_rule=[NOW] * 3))[1].state == "held"


@given(opens, st.none() | minutes, st.none() | minutes, st.lists(minutes, max_size=5))
def test_each_event_gets_one_decision_and_at_most_one_runs(events, newest, last, of_rule):
    found = decide(events, Past(newest, last, of_rule), cooldown=HOUR, runs_per_day=3, now=NOW)
    assert sorted(d.seq for d in found) == [e.seq for e in events]
    assert sum(d.state in ("starting", "held") for d in found) <= 1
    for decision in found:
        assert decision.state in ("starting", "held", "skipped")
        # What is held is looked at again, and later than now.
        assert (decision.due is not None and decision.due > NOW) == (decision.state == "held")
        if decision.state == "starting":
            assert last is None or last + HOUR <= NOW
            assert sum(at > NOW - DAY for at in of_rule) < 3
