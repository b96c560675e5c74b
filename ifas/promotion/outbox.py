"""Which decisions were told to a receiver of events: a table beside the ledger's, in the same database.

It decides nothing, and no hash covers it. An entry is marked after the receiver has acknowledged it, so that a process
that is killed in between has it sent a second time, and none is lost: whatever was decided since events were switched
on, by a process that sends events or by one that does not, is left until it is marked. Rows are only added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import Connection, String, UniqueConstraint, event, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from ifas.database.connection import Database, Use
from ifas.promotion.candidate import Entry
from ifas.promotion.clock import now
from ifas.promotion.tables import DecisionRow, append_only
from ifas.promotion.upgrade import LEDGER

#: Events were switched on after this entry; the receiver has acknowledged it; the receiver refused it.
Mark = Literal["on", "sent", "refused"]


class Base(DeclarativeBase):
    """Metadata of the outbox."""


class AnnouncedRow(Base):
    """What happened to an entry of the ledger. `entry` is its `seq`, 0 where events were on before the first one."""

    __tablename__ = "announced"
    __table_args__ = (UniqueConstraint("hash", "mark", name="announced_once"),)

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    entry: Mapped[int]
    hash: Mapped[str] = mapped_column(String(64))
    mark: Mapped[str] = mapped_column(String(8))
    at: Mapped[str] = mapped_column(String(40))


@event.listens_for(AnnouncedRow.__table__, "after_create")
def _make_append_only(table: Any, connection: Connection, **_: Any) -> None:
    for statement in append_only(table.name, connection.dialect.name):
        connection.exec_driver_sql(statement)


OUTBOX = Use("ledger", LEDGER.setting, Base.metadata, lock=0x1FA5_0B07)


class Outbox:
    """Opens the outbox of a ledger that is there.

    Args:
        url: of the ledger.
        make: whether its table is made where it is missing.

    Raises:
        ConfigError: not a usable URL, the database can't be reached, or there is no right to make the table.
    """

    def __init__(self, url: str, *, make: bool = True) -> None:
        self._database = Database(url, OUTBOX, make=make)

    def close(self) -> None:
        """Closes the connections."""
        self._database.close()

    def switch_on(self) -> None:
        """From now on, entries are to be sent; those that are there are not. The first call counts."""
        if self._on(self._rows()) is not None:
            return
        with self._database.writing() as session:
            last = session.scalar(select(func.max(DecisionRow.seq))) or 0
            sha256 = session.scalar(select(DecisionRow.hash).where(DecisionRow.seq == last)) or ""
            if session.scalar(select(AnnouncedRow.seq).where(AnnouncedRow.mark == "on")) is None:
                _add(session, last, sha256, "on")

    def left(self, entries: Sequence[Entry], *, refused: bool = False, before: bool = False) -> list[Entry]:
        """Those of a ledger's entries that are to be sent, in their order.

        Args:
            refused: also those that the receiver refused.
            before: also those from before events were switched on.
        """
        rows = self._rows()
        done = {row.hash for row in rows if row.mark == "sent" or (row.mark == "refused" and not refused)}
        on = self._on(rows)
        return [
            entry for entry in entries if entry.hash not in done and (before or (on is not None and entry.seq > on))
        ]

    def mark(self, entry: Entry, mark: Mark) -> None:
        """Keeps what happened to an entry; the same again changes nothing."""
        with self._database.writing() as session:
            same = (AnnouncedRow.hash == entry.hash) & (AnnouncedRow.mark == mark)
            if session.scalar(select(AnnouncedRow.seq).where(same)) is None:
                _add(session, entry.seq, entry.hash, mark)

    def _rows(self) -> Sequence[AnnouncedRow]:
        with self._database.reading() as session:
            if not self._database.has(AnnouncedRow.__tablename__, session):
                return []
            rows = session.scalars(select(AnnouncedRow).order_by(AnnouncedRow.seq)).all()
            session.expunge_all()
            return rows

    @staticmethod
    def _on(rows: Sequence[AnnouncedRow]) -> int | None:
        return next((row.entry for row in rows if row.mark == "on"), None)


def _add(session: Session, entry: int, sha256: str, mark: Mark) -> None:
    session.add(AnnouncedRow(entry=entry, hash=sha256, mark=mark, at=now().isoformat(timespec="milliseconds")))
