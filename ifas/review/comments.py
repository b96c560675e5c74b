"""Comments on a candidate, or on one of its figures. They decide nothing, and none is changed or removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select

from ifas.core.errors import ConfigError
from ifas.database.connection import Database
from ifas.review.tables import CommentRow

LONGEST = 4000


@dataclass(frozen=True)
class Comment:
    """One comment. `metric` is empty where it is about the candidate as a whole."""

    metric: str
    author: str
    text: str
    at: str


def add(database: Database, candidate: str, author: str, text: str, metric: str = "") -> Comment:
    """Keeps a comment. Raises ConfigError where it is empty or too long."""
    text = text.strip()
    if not 0 < len(text) <= LONGEST:
        raise ConfigError(f"the comment has {len(text)} characters", f"write 1 to {LONGEST}")
    made = Comment(metric[:200], author, text, datetime.now(UTC).isoformat(timespec="seconds"))
    with database.writing() as session:
        session.add(CommentRow(candidate=candidate, metric=made.metric, author=author, text=text, at=made.at))
    return made


def of(database: Database, candidate: str) -> Sequence[Comment]:
    """The comments on a candidate, oldest first."""
    query = select(CommentRow).where(CommentRow.candidate == candidate).order_by(CommentRow.seq)
    with database.reading() as session:
        return [Comment(row.metric, row.author, row.text, row.at) for row in session.scalars(query)]
