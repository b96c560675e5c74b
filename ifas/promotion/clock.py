"""The time of an entry. It never runs backwards in a ledger, whatever the clocks of its writers say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ifas.promotion.tables import DecisionRow, ProductRow

#: Two entries are never of the same time, so that it is known which registration a decision came after.
TICK = timedelta(milliseconds=1)


def now() -> datetime:
    """This machine's time, UTC."""
    return datetime.now(UTC)


def after(session: Session) -> str:
    """A time for the entry that this transaction makes: now, or right after the last one where that is later."""
    last = max(session.scalar(select(func.max(table.at))) or "" for table in (DecisionRow, ProductRow))
    made = now()
    if last:
        made = max(made, datetime.fromisoformat(last) + TICK)
    return made.isoformat(timespec="milliseconds")
