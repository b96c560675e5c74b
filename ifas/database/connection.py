"""A connection to SQLite or PostgreSQL, by URL.

Every writing transaction first takes the one writer lock of its tables, so that two writers never decide on the same
last state. Readers do not wait for writers.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

from ifas.core.errors import ConfigError, LaunchError, MachineError
from ifas.core.files import check_writable, locked

#: Seconds to wait for a connection or for another writer.
PATIENCE = 30
#: TCP keepalives of PostgreSQL's connections: a node that is lost is known after a minute, not after two hours.
KEEPALIVES = {"idle": 30, "interval": 10, "count": 3}
#: Option of an engine whose transactions write: they take the writers' lock first.
WRITING = "ifas_writing"
#: First bytes of every SQLite database.
_SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True)
class Use:
    """What is kept in a database, and how its owner speaks of it.

    Args:
        name: for messages, such as "ledger".
        setting: where its URL is set.
        tables: the tables, made where they are missing.
        lock: number of the writers' advisory lock; no other user of the same PostgreSQL database may take it.
        ahead: SQLite's write-ahead log, for many small commits: each is one write to the disk, on which it waits.
        upgrade: brings tables that an older version made to today's form.
    """

    name: str
    setting: str
    tables: MetaData
    lock: int
    ahead: bool = False
    upgrade: Callable[[Engine], None] | None = None


def _sqlite(url: URL, use: Use) -> Engine:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigError(
            f"the {use.name} can't be kept in memory: it would be lost", f"use sqlite:///FOLDER/{use.name}.db"
        )
    file = Path(url.database).absolute()
    try:
        # SQLite takes a short file for an empty database and would write over it.
        if file.is_file() and file.stat().st_size:
            with file.open("rb") as there:
                if there.read(len(_SQLITE)) != _SQLITE:
                    raise ConfigError(
                        f"{use.name} {file} is not a database of SQLite", f"set {use.setting} to another file"
                    )
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the folder of {use.name} {file} can't be used: {error.strerror}",
            f"set {use.setting} to another place",
        ) from error
    engine = create_engine(url, connect_args={"timeout": PATIENCE}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        # The driver's own transaction handling would begin only at the first write, after the read that needs the lock.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        if use.ahead:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get(WRITING)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def _postgresql(url: URL, use: Use) -> Engine:
    url = url.set(drivername="postgresql+psycopg")
    arguments = {
        "connect_timeout": 10,
        "application_name": "ifas",
        "tcp_user_timeout": 60_000,
        **{f"keepalives_{k}": v for k, v in KEEPALIVES.items()},
    }
    engine = create_engine(url, connect_args=arguments, hide_parameters=True, pool_pre_ping=True)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get(WRITING):
            connection.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE}s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": use.lock})
        else:
            # One view for all statements: else what others commit between two of them looks like an alteration.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")

    return engine


#: Backend of the URL -> how its engine is made. To add a database, add a line, and its triggers in
#: `ifas.promotion.tables`.
BACKENDS: dict[str, Callable[[URL, Use], Engine]] = {"sqlite": _sqlite, "postgresql": _postgresql}


def check(url: str, use: Use) -> None:
    """Whether the database at this URL can be written; makes nothing.

    Raises:
        ConfigError: not a URL, a database that is not supported, one that can't be reached, or no right to write it.
    """
    parsed, backend = _parsed(url, use)
    if backend == "sqlite" and parsed.database:
        file = Path(parsed.database).absolute()
        try:
            # SQLite writes a journal beside the file, so that both must be writable.
            check_writable(file.parent)
            with file.open("r+b") if file.exists() else nullcontext():
                pass
        except OSError as error:
            raise ConfigError(
                f"{use.name} {file} can't be written: {error.strerror}",
                f"set {use.setting} to a place that can be written",
            ) from error
        if not file.exists():
            return
    Database(url, use, make=False).close()


def exists(url: str, use: Use) -> bool:
    """Whether there is a database to read: a SQLite file, or any PostgreSQL. Raises ConfigError for no usable URL."""
    parsed, backend = _parsed(url, use)
    return backend != "sqlite" or bool(parsed.database and Path(parsed.database).is_file())


def _parsed(url: str, use: Use) -> tuple[URL, str]:
    """The URL and the name of its backend."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError):
        # Without the URL itself: it may hold a password.
        raise ConfigError(f"{use.setting} is not a database URL", f"e.g. sqlite:///{use.name}.db") from None
    # Many services still print `postgres`.
    backend = {"postgres": "postgresql"}.get(backend, backend)
    if backend not in BACKENDS:
        raise ConfigError(f"a {use.name} can't be kept in {backend!r}", f"use one of: {', '.join(BACKENDS)}")
    return parsed, backend


class Database:
    """An open database.

    Args:
        url: SQLAlchemy URL. A PostgreSQL password may be left out of it and given by `PGPASSWORD` or `PGPASSFILE`.
        make: whether tables that are not there are made.

    Raises:
        ConfigError: not a URL, a database that is not supported, or one that can't be reached; `repeat` is true
            where its server may come back.
        MachineError: its disk is full, here and wherever it is written to.
    """

    def __init__(self, url: str, use: Use, *, make: bool = True) -> None:
        parsed, backend = _parsed(url, use)
        self._use = use
        self._secrets = _secrets(parsed)
        self.shown = self._masked(parsed.render_as_string(hide_password=True))
        self._engine = BACKENDS[backend](parsed, use)
        # Only if they are missing: a reader needs no right to write.
        with self.reading() as session:
            there = {table for table in use.tables.tables if self.has(table, session)}
        if there and use.upgrade:
            with self._told():
                use.upgrade(self._engine)
        if make and there != set(use.tables.tables):
            with self.writing() as session:
                use.tables.create_all(session.connection())

    def has(self, table: str, session: Session) -> bool:
        """Whether a table is there: one that a newer version of ifas added may not be."""
        return bool(inspect(session.connection()).has_table(table))

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One consistent view."""
        with self._session(self._engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction under the writer lock; committed when the block ends without an error."""
        with self._session(self._engine.execution_options(**{WRITING: True})) as session:
            yield session

    @contextmanager
    def alone(self) -> Iterator[Callable[[], None]]:
        """Holds the right to be the one process that acts on this database, until the block or the process ends.

        Yields:
            what raises LaunchError when the right is lost, with the connection that held it.

        Raises:
            LaunchError: another process holds it.
        """
        taken = LaunchError(
            f"another process acts on {self._use.name} {self.shown}", "end that one first, or name another database"
        )
        if self._engine.dialect.name == "sqlite":
            file = Path(str(self._engine.url.database)).absolute()

            def refuse(_since: str) -> None:
                raise taken

            with locked(file.with_name(f"{file.name}.lock"), refuse):
                yield lambda: None
            return
        # Of the connection, not of a transaction: it is free again when the connection ends, however it ends.
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.detach()  # closed at the end, not pooled with the lock
            if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": self._use.lock + 1}):
                raise taken
            # The server's end: it frees the lock of a node that is gone.
            for name, value in KEEPALIVES.items():
                connection.execute(text(f"SET tcp_keepalives_{name} = {value}"))

            def check() -> None:
                try:
                    connection.execute(text("SELECT 1"))
                except SQLAlchemyError:
                    raise LaunchError(
                        f"the right to act on {self._use.name} {self.shown} is lost", "start it again"
                    ) from None

            yield check

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    @contextmanager
    def _session(self, engine: Engine) -> Iterator[Session]:
        with self._told(), Session(engine) as session, session.begin():
            yield session

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the database as ours."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            cause = self._masked(str(getattr(error, "orig", None) or error)).strip()
            if _disk_is_full(error):
                raise MachineError(
                    f"{self._use.name} {self.shown} can't be written: {cause}",
                    "free space on its disk, then run the same command again",
                ) from None
            unusable = ConfigError(
                f"{self._use.name} {self.shown} can't be used: {cause}",
                f"start the database, or set {self._use.setting} to one that is there",
            )
            unusable.repeat = bool(_AWAY.search(cause))
            raise unusable from None

    def _masked(self, message: str) -> str:
        for secret in self._secrets:
            message = message.replace(secret, "***")
        return message


#: What PostgreSQL and its client say of a server that may come back.
_AWAY = re.compile(
    "refused|time(d )?out|resolve|translate host|unreachable|closed the connection|reset by peer|starting up|"
    "shutting down|administrator command|too many (clients|connections)",
    re.IGNORECASE,
)


def _disk_is_full(error: SQLAlchemyError | sqlite3.Error) -> bool:
    """Whether the disk of the database has no space: what SQLite and PostgreSQL say of it."""
    cause = getattr(error, "orig", None) or error
    return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(cause, "sqlstate", "") == "53100"


def _secrets(url: URL) -> list[str]:
    """Every spelling of the passwords in a URL, longest first."""
    given = [url.password, *(url.query.get(key) for key in ("password", "sslpassword", "passfile"))]
    plain = [str(value) for value in given if value]
    return sorted({form for s in plain for form in (s, quote(s, safe=""), quote_plus(s))}, key=len, reverse=True)
