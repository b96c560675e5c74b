"""Whether an event starts a run. Of several open events on one thing, only the newest may.

What a person asks for is decided by itself: it supersedes no event that is newer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Open:
    """An event that is not decided, or waits.

    Args:
        seq: order of arrival.
        time: when it happened, by its sender.
        replayed: a person asked for it, so that neither its age nor the cool-down matters.
    """

    seq: int
    event_id: str
    time: datetime
    replayed: bool = False


@dataclass(frozen=True)
class Past:
    """What was run before.

    Args:
        newest: time of the newest event on the same thing that started a run.
        last: when the last run on the same thing was decided.
        of_rule: when the runs of the same rule were decided in the last day.
    """

    newest: datetime | None = None
    last: datetime | None = None
    of_rule: list[datetime] = field(default_factory=list)


@dataclass(frozen=True)
class Decision:
    """`state` is "starting", "held" (until `due`) or "skipped"."""

    seq: int
    state: str
    reason: str
    due: datetime | None = None


def decide(
    events: Sequence[Open], past: Past, *, cooldown: timedelta, runs_per_day: int, now: datetime
) -> list[Decision]:
    """A decision on each of the open events on one thing, at least one."""
    asked = max((event for event in events if event.replayed), key=_age, default=None)
    newest = max(events, key=_age)
    decisions = [
        Decision(event.seq, "skipped", f"event {newest.event_id} on the same is newer")
        for event in events
        if event is not newest and event is not asked
    ]
    if asked is not None and asked is not newest:
        decisions.append(_of_newest(asked, past, cooldown, runs_per_day, now))
        if decisions[-1].state == "starting":
            past = replace(past, last=now, of_rule=[*past.of_rule, now])
    return [*decisions, _of_newest(newest, past, cooldown, runs_per_day, now)]


def _age(event: Open) -> tuple[datetime, int]:
    return event.time, event.seq


def _of_newest(event: Open, past: Past, cooldown: timedelta, runs_per_day: int, now: datetime) -> Decision:
    if not event.replayed:
        if past.newest is not None and event.time < past.newest:
            return Decision(
                event.seq, "skipped", f"a run was started for an event of {past.newest.isoformat()}, which is newer"
            )
        if past.last is not None and now < past.last + cooldown:
            return Decision(event.seq, "held", f"cool-down since {past.last.isoformat()}", past.last + cooldown)
    spent = sorted(at for at in past.of_rule if at > now - DAY)
    if len(spent) >= runs_per_day:
        free = spent[-runs_per_day] + DAY
        return Decision(event.seq, "held", f"budget: {len(spent)} of {runs_per_day} runs in 24 hours", free)
    return Decision(event.seq, "starting", "asked for by a person" if event.replayed else "no reason against it")
