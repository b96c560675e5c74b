"""What the trigger keeps: events, their state, and the log of decisions. A change of state and its decision are one
transaction, so that after a crash there is no run that nobody decided on, and none that was decided on and forgotten.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import case, delete, func, insert, select, tuple_, update
from sqlalchemy.orm import Session, aliased

from ifas.core.errors import DataError
from ifas.database.connection import Database
from ifas.trigger.decide import DAY, Open, Past, decide
from ifas.trigger.events import Envelope, Event
from ifas.trigger.rules import Trigger
from ifas.trigger.tables import REFUSED, TRIGGER, DecisionRow, EventRow, text_of, time_of

OPEN = ("new", "held")
RAN = ("starting", "started")
DECIDED = ("started", "skipped", "failed")
#: Most events of one transaction.
AT_ONCE = 500


@dataclass(frozen=True)
class Arrival:
    """What a sender sent: an event, or (with `refused`) the reason why it is none that is acted on."""

    sender: str
    envelope: Envelope
    event: Event | None
    refused: str = ""


@dataclass(frozen=True)
class Start:
    """A run that was decided on."""

    seq: int
    run: str
    type: str
    rule: str
    data: dict[str, Any]
    attempts: int


class Store:
    """Opens the trigger's database and makes its tables where they are missing.

    Args:
        url: SQLAlchemy URL of a SQLite file or a PostgreSQL database.

    Raises:
        ConfigError: not a usable URL, or the database can't be reached.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url, TRIGGER)

    def close(self) -> None:
        """Closes the connections."""
        self._database.close()

    @contextmanager
    def alone(self) -> Iterator[Callable[[], None]]:
        """Holds the right to start runs from this database; see `Database.alone`."""
        with self._database.alone() as check:
            yield check

    def ping(self) -> None:
        """Raises ConfigError where the database does not answer."""
        with self._database.reading() as session:
            session.execute(select(1))

    def keep(self, arrivals: Sequence[Arrival], trigger: Trigger, now: datetime) -> list[str]:
        """Keeps what arrived, and of refusals the first of each source and id; when it returns, it is on the disk.

        Returns:
            of each whether it is "new", a "duplicate" of one that is there, or "refused".
        """
        answers = []
        keys = [(a.envelope.source, a.envelope.id) for a in arrivals if a.event is not None]
        with self._database.writing() as session:
            key = tuple_(EventRow.source, EventRow.event_id)
            there = {
                (row.source, row.event_id)
                for row in session.execute(select(EventRow.source, EventRow.event_id).where(key.in_(keys)))
            }
            wrong = [(a.envelope.source, a.envelope.id) for a in arrivals if a.event is None]
            told = tuple_(DecisionRow.source, DecisionRow.event_id)
            refused = {
                (row.source, row.event_id)
                for row in session.execute(
                    select(DecisionRow.source, DecisionRow.event_id).where(
                        DecisionRow.state == REFUSED, told.in_(wrong)
                    )
                )
            }
            again: dict[tuple[str, str], int] = defaultdict(int)
            rows, decisions = [], []
            for arrival in arrivals:
                mine = (arrival.envelope.source, arrival.envelope.id)
                if arrival.event is None:
                    answers.append("refused")
                    if mine not in refused:
                        refused.add(mine)
                        decisions.append(_decision(mine, REFUSED, arrival.refused, now))
                elif mine in there:
                    answers.append("duplicate")
                    again[mine] += 1
                else:
                    answers.append("new")
                    there.add(mine)
                    row = _row(arrival.sender, arrival.event, trigger, now)
                    rows.append(row)
                    if row["state"] == "skipped":
                        decisions.append(_decision(mine, "skipped", f"no rule for {row['type']}", now))
            if rows:
                session.execute(insert(EventRow), rows)
            if decisions:
                session.execute(insert(DecisionRow), decisions)
            for mine, times in again.items():
                session.execute(update(EventRow).where(key.in_([mine])).values(repeats=EventRow.repeats + times))
        return answers

    def decide(self, trigger: Trigger, now: datetime) -> int:
        """Decides on the events that are due; returns how many there were."""
        with self._database.reading() as session:
            if session.scalar(_due(now).with_only_columns(EventRow.seq).limit(1)) is None:
                return 0
        with self._database.writing() as session:
            due = session.scalars(_due(now).order_by(EventRow.seq).limit(AT_ONCE)).all()
            things = {(row.rule, row.about) for row in due}
            if not things:
                return 0
            thing = tuple_(EventRow.rule, EventRow.about)
            groups: dict[tuple[str, str], list[EventRow]] = defaultdict(list)
            for row in session.scalars(select(EventRow).where(EventRow.state.in_(OPEN), thing.in_(things))):
                try:
                    time_of(row.time)
                except ValueError as error:  # it must not hold up the others
                    _change(session, row, "failed", f"its time can't be read: {error}", now)
                else:
                    groups[row.rule, row.about].append(row)
            past = _past(session, things, now)
            for (name, about), rows in sorted(groups.items(), key=lambda group: min(row.seq for row in group[1])):
                rule = trigger.rules.get(name)
                if rule is None:
                    for row in rows:
                        _change(session, row, "skipped", f"the rule {name} is gone", now)
                    continue
                by_seq = {row.seq: row for row in rows}
                before = past[name, about]
                decisions = decide(
                    [Open(row.seq, row.event_id, time_of(row.time), bool(row.replays)) for row in rows],
                    before,
                    cooldown=timedelta(hours=rule.cooldown_hours),
                    runs_per_day=rule.runs_per_day,
                    now=now,
                )
                for decision in decisions:
                    row = by_seq[decision.seq]
                    if decision.state == "starting":
                        row.run, row.decided = run_name(rule.run, row), text_of(now)
                        before.of_rule.append(now)
                    _change(session, row, decision.state, decision.reason, now, decision.due)
            return len(due)

    def starts(self, now: datetime) -> list[Start]:
        """The runs that are to be started now, in the order of their decisions."""
        with self._database.reading() as session:
            rows = session.scalars(
                select(EventRow)
                .where(EventRow.state == "starting", EventRow.due <= text_of(now))
                .order_by(EventRow.decided, EventRow.seq)
            )
            return [Start(row.seq, row.run, row.type, row.rule, row.data, row.attempts) for row in rows]

    def started(self, start: Start, run_id: str, now: datetime) -> None:
        """KFP has the run."""
        with self._database.writing() as session:
            row = session.get_one(EventRow, start.seq)
            row.run_id = run_id
            _change(session, row, "started", f"KFP has it as {run_id}", now)

    def failed(self, start: Start, reason: str, now: datetime) -> None:
        """The run can never be started."""
        with self._database.writing() as session:
            _change(session, session.get_one(EventRow, start.seq), "failed", reason, now)

    def postponed(self, start: Start, reason: str, due: datetime, now: datetime) -> None:
        """The run could not be started, and is tried again at `due`. Only the first failure is logged."""
        with self._database.writing() as session:
            row = session.get_one(EventRow, start.seq)
            row.attempts += 1
            row.due = text_of(due)
            if row.attempts == 1:
                session.add(DecisionRow(**_decision((row.source, row.event_id), "starting", reason, now, row.run)))

    def replay(self, event_id: str, source: str | None, reason: str, now: datetime) -> str:
        """Has an event that started no run, or whose run is lost, decided anew. Returns its source.

        Raises:
            DataError: there is no such event, there are several, or it is not decided yet.
        """
        with self._database.writing() as session:
            found = session.scalars(select(EventRow).where(EventRow.event_id == event_id)).all()
            rows = [row for row in found if source in (None, row.source)]
            if len(rows) != 1:
                sources = ", ".join(sorted(row.source for row in found)) or "none"
                raise DataError(
                    f"there is not one event {event_id}, but {len(rows)}", f"give --source, one of: {sources}"
                )
            (row,) = rows
            if row.state in (*OPEN, "starting"):
                raise DataError(f"event {event_id} is {row.state}: it is not decided yet", "wait for its decision")
            if not row.rule:
                raise DataError(f"no rule is for events of type {row.type}", "add a rule to the trigger's file")
            row.replays += 1
            row.attempts = 0
            _change(session, row, "new", f"replay: {reason}", now)
            return row.source

    def prune(self, before: datetime) -> int:
        """Deletes what was decided before a time; returns how many events and refusals it was.

        Of each thing, the newest event that was to start a run stays: by it, whatever comes again that is older starts
        none. What is not decided, or waits, stays.
        """
        gone = 0
        while some := self._prune_some(text_of(before)):
            gone += some
        return gone

    def _prune_some(self, before: str) -> int:
        newer = aliased(EventRow)
        is_last = ~(
            select(newer.seq)
            .where(newer.rule == EventRow.rule, newer.about == EventRow.about, newer.decided != "")
            .where(tuple_(newer.time, newer.seq) > tuple_(EventRow.time, EventRow.seq))
            .exists()
        )
        event = (DecisionRow.source == EventRow.source) & (DecisionRow.event_id == EventRow.event_id)
        since = select(DecisionRow.seq).where(event, DecisionRow.at >= before).exists()
        old = (
            select(EventRow.seq, EventRow.source, EventRow.event_id)
            .where(EventRow.state.in_(DECIDED), EventRow.received < before, ~since)
            .where((EventRow.decided == "") | ~is_last)
            .limit(AT_ONCE)
        )
        refused = select(DecisionRow.seq).where(DecisionRow.state == REFUSED, DecisionRow.at < before).limit(AT_ONCE)
        with self._database.writing() as session:
            events = session.execute(old).all()
            named = tuple_(DecisionRow.source, DecisionRow.event_id)
            session.execute(delete(DecisionRow).where(named.in_([(row.source, row.event_id) for row in events])))
            session.execute(delete(EventRow).where(EventRow.seq.in_([row.seq for row in events])))
            refusals = session.scalars(refused).all()
            session.execute(delete(DecisionRow).where(DecisionRow.seq.in_(refusals)))
            return len(events) + len(refusals)

    def listed(self, state: str | None = None, limit: int = 100) -> dict[str, list[dict[str, Any]]]:
        """The newest events with their decisions, and the newest that were refused; newest first."""
        with self._database.reading() as session:
            query = select(EventRow).order_by(EventRow.seq.desc()).limit(limit)
            rows = session.scalars(query.where(EventRow.state == state) if state else query).all()
            keys = [(row.source, row.event_id) for row in rows]
            decisions: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
            for start in range(0, len(keys), AT_ONCE):
                key = tuple_(DecisionRow.source, DecisionRow.event_id)
                some = select(DecisionRow).where(key.in_(keys[start : start + AT_ONCE])).order_by(DecisionRow.seq)
                for one in session.scalars(some):
                    decisions[one.source, one.event_id].append(
                        {"at": one.at, "state": one.state, "reason": one.reason, "run": one.run}
                    )
            events = [_listed(row, decisions[row.source, row.event_id]) for row in rows]
            last = select(DecisionRow).where(DecisionRow.state == REFUSED).order_by(DecisionRow.seq.desc()).limit(limit)
            refused = [
                {"source": one.source, "id": one.event_id, "at": one.at, "reason": one.reason}
                for one in session.scalars(last)
                if state in (None, REFUSED)
            ]
        return {"events": events, "refused": refused}


def run_name(pipeline: str, row: EventRow) -> str:
    """Name of the run that an event starts: always the same, so that a second start finds the first."""
    digest = hashlib.sha256(f"{row.source}\0{row.event_id}\0{row.replays}".encode()).hexdigest()
    return f"{pipeline}-{digest[:16]}"


def _due(now: datetime) -> Any:
    return select(EventRow).where(EventRow.state.in_(OPEN), EventRow.due <= text_of(now))


#: Of the decisions about one run: KFP did not refuse it.
_NEVER_FAILED = func.max(case((DecisionRow.state == "failed", 1), else_=0)) == 0


def _past(session: Session, things: set[tuple[str, str]], now: datetime) -> Mapping[tuple[str, str], Past]:
    of_rule: dict[str, list[datetime]] = defaultdict(list)
    # Of the log, not of the event's state: a replay changes that, and the run that was started before counts still.
    event = (EventRow.source == DecisionRow.source) & (EventRow.event_id == DecisionRow.event_id)
    recent = (
        select(EventRow.rule, func.min(DecisionRow.at))
        .join(DecisionRow, event)
        .where(DecisionRow.state.in_((*RAN, "failed")), EventRow.rule.in_({rule for rule, _ in things}))
        .where(EventRow.decided != "")
        .group_by(EventRow.rule, DecisionRow.run)
        .having(func.min(DecisionRow.at) > text_of(now - DAY), _NEVER_FAILED)
    )
    for rule, decided in session.execute(recent):
        of_rule[rule].append(time_of(decided))
    of_thing = (EventRow.rule, EventRow.about)
    runs = (
        select(*of_thing, func.max(EventRow.time), func.min(DecisionRow.at))
        .join(DecisionRow, event)
        .where(DecisionRow.state.in_((*RAN, "failed")), tuple_(*of_thing).in_(things), EventRow.decided != "")
        .group_by(*of_thing, DecisionRow.run)
        .having(_NEVER_FAILED)
    )
    ran: dict[tuple[str, str], tuple[datetime, datetime]] = {}
    for rule, about, time, at in session.execute(runs):
        newest, last = ran.get((rule, about), (time_of(time), time_of(at)))
        ran[rule, about] = max(newest, time_of(time)), max(last, time_of(at))
    # Runs that this pass decides on are added to the list of their rule.
    found = {}
    for thing in things:
        newest_run, last_run = ran.get(thing, (None, None))
        found[thing] = Past(newest_run, last_run, of_rule[thing[0]])
    return found


def _change(
    session: Session, row: EventRow, state: str, reason: str, now: datetime, due: datetime | None = None
) -> None:
    until = text_of(due) if due else ""
    if (row.state, row.due) != (state, until):
        session.add(DecisionRow(**_decision((row.source, row.event_id), state, reason, now, row.run)))
    row.state, row.due = state, until


def _row(sender: str, event: Event, trigger: Trigger, now: datetime) -> dict[str, Any]:
    rule = trigger.rule_of(event.envelope.type)
    return {
        "source": event.envelope.source,
        "event_id": event.envelope.id,
        "sender": sender,
        "type": event.envelope.type,
        "about": event.data.about,
        "time": text_of(event.envelope.time),
        "received": text_of(now),
        "data": event.data.model_dump(),
        "rule": rule[0] if rule else "",
        "state": "new" if rule else "skipped",
        **dict.fromkeys(("due", "run", "decided", "run_id"), ""),
        **dict.fromkeys(("attempts", "repeats", "replays"), 0),
    }


def _decision(key: tuple[str, str], state: str, reason: str, now: datetime, run: str = "") -> dict[str, Any]:
    return {"source": key[0], "event_id": key[1], "state": state, "reason": reason, "at": text_of(now), "run": run}


def _listed(row: EventRow, decisions: list[dict[str, str]]) -> dict[str, Any]:
    names = ("source", "type", "about", "time", "received", "data", "rule", "state", "due", "run", "run_id")
    return {
        "id": row.event_id,
        **{name: getattr(row, name) for name in (*names, "attempts", "repeats", "replays")},
        "decisions": decisions,
    }
