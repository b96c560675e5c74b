"""The trigger's tables: events with their state, and the log of decisions, which is only added to.

What is older than `keep_days` is deleted.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ifas.database.connection import Use

#: State of an event -> what it means.
STATES = {
    "new": "kept, not decided yet",
    "held": "starts a run when cool-down and budget allow it, unless a newer event comes",
    "starting": "is to start a run; tried until KFP takes it",
    "started": "started a run",
    "skipped": "starts no run",
    "failed": "KFP refused the run for good, or the row can't be read",
}
#: Of an event that is not kept, since it is not valid; only in the log.
REFUSED = "refused"


class Base(DeclarativeBase):
    """Metadata of the trigger."""


class EventRow(Base):
    """A valid event. Times are text of one length in UTC, so that they sort."""

    __tablename__ = "trigger_events"
    __table_args__ = (
        UniqueConstraint("source", "event_id", name="trigger_events_once"),
        Index("trigger_events_state", "state", "due"),
        Index("trigger_events_about", "rule", "about", "state"),
    )

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    source: Mapped[str] = mapped_column(String(300))
    event_id: Mapped[str] = mapped_column(String(200))
    sender: Mapped[str] = mapped_column(String(40))
    type: Mapped[str] = mapped_column(String(200))
    about: Mapped[str] = mapped_column(String(200))
    time: Mapped[str] = mapped_column(String(32))
    received: Mapped[str] = mapped_column(String(32))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    rule: Mapped[str] = mapped_column(String(40))
    state: Mapped[str] = mapped_column(String(16))
    #: When it is looked at again; "" is at once.
    due: Mapped[str] = mapped_column(String(32))
    #: Name of the run; when it was decided, and KFP's id of it.
    run: Mapped[str] = mapped_column(String(80))
    decided: Mapped[str] = mapped_column(String(32))
    run_id: Mapped[str] = mapped_column(String(80))
    attempts: Mapped[int]
    #: How often the same event came again.
    repeats: Mapped[int]
    #: How often a person had it decided anew.
    replays: Mapped[int]


class DecisionRow(Base):
    """A decision to run or not, and why."""

    __tablename__ = "trigger_decisions"
    __table_args__ = (Index("trigger_decisions_of", "source", "event_id"),)

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[str] = mapped_column(String(32))
    source: Mapped[str] = mapped_column(String(300))
    event_id: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    run: Mapped[str] = mapped_column(String(80))


TRIGGER = Use("trigger", "IFAS_TRIGGER_STORE", Base.metadata, lock=0x1FA5_7419, ahead=True)


def text_of(at: datetime) -> str:
    """A time as the tables hold it."""
    # Not strftime: its %Y is not padded.
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def time_of(text: str) -> datetime:
    """The time that `text_of` wrote."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
