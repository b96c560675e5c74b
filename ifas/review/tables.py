"""What the review page keeps: accounts, sessions and comments. Decisions are in the ledger, and only there."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, Connection, String, Text, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ifas.database.connection import Use


class Base(DeclarativeBase):
    """Metadata of the review page."""


class AccountRow(Base):
    """Who may sign in with a password. An account is never removed: decisions name it."""

    __tablename__ = "review_accounts"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    #: argon2id, with its parameters and salt.
    password: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(16))
    disabled: Mapped[bool] = mapped_column(Boolean)
    made_by: Mapped[str] = mapped_column(String(200))
    at: Mapped[str] = mapped_column(String(40))


class SessionRow(Base):
    """Somebody who is signed in, until they sign out or the session is too old."""

    __tablename__ = "review_sessions"

    #: SHA-256 of what the cookie holds, so that who reads this table has no session.
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    account: Mapped[str] = mapped_column(String(64), index=True)
    ends: Mapped[str] = mapped_column(String(40))


class CommentRow(Base):
    """What somebody said about a candidate, or about one of its figures (`metric`). Comments are only ever added."""

    __tablename__ = "review_comments"

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    candidate: Mapped[str] = mapped_column(String(12), index=True)
    metric: Mapped[str] = mapped_column(String(200))
    author: Mapped[str] = mapped_column(String(200))
    text: Mapped[str] = mapped_column(Text)
    at: Mapped[str] = mapped_column(String(40))


@event.listens_for(CommentRow.__table__, "after_create")
def _only_added(table: Any, connection: Connection, **_: Any) -> None:
    said = f"{table.name} is append-only"
    if connection.dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER {table.name}_no_{verb.lower()} BEFORE {verb} ON {table.name} "
                f"BEGIN SELECT RAISE(ABORT, '{said}'); END"
            )
        return
    connection.exec_driver_sql(
        f"CREATE OR REPLACE FUNCTION {table.name}_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{said}'; END $$"
    )
    connection.exec_driver_sql(
        f"CREATE TRIGGER {table.name}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table.name} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table.name}_append_only()"
    )


REVIEW = Use("review", "review.database (or IFAS_REVIEW)", Base.metadata, lock=0x1FA5_4E71)
