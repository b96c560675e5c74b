"""Counts the side effects of a process and of its Python children, and kills or holds them at one.

Python imports this by itself where its folder is on PYTHONPATH, so that nothing of the product is changed. A side
effect is what somebody else could see: a file or folder made, opened for writing, linked, renamed or removed below one
of the roots, a commit of a database, a request that changes an object store or something at another server. Each is
noted just before it is done. So a kill at number N comes after N - 1.

Files that a library opens in C (Parquet, safetensors, SQLite's pages) are not seen; what is done around them is.
"""

from __future__ import annotations

import fcntl
import importlib.abc
import importlib.machinery
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

#: JSON: `journal`, `roots` (name -> folder), `kill` (number, 0 for never), `hold` (pattern, "" for never).
SETTINGS = "IFAS_DRILL"
#: Process id of the first one, which is killed with whichever process did what was to be its last.
MAIN = "IFAS_DRILL_MAIN"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("PUT", "POST", "DELETE", "PATCH")
#: Audit event -> (what is said of it, which of its arguments is the path).
FILES = {
    "os.rename": ("put", 1),
    "os.link": ("link", 1),
    "os.symlink": ("link", 1),
    "os.mkdir": ("folder", 0),
    "os.rmdir": ("remove", 0),
    "os.remove": ("remove", 0),
    "os.truncate": ("write", 0),
    "shutil.rmtree": ("remove", 0),
}


class Recorder:
    """Notes side effects in a journal that all processes of a step share."""

    def __init__(self, settings: dict[str, Any], main: int) -> None:
        self._journal: str = settings["journal"]
        self._roots: dict[str, str] = settings["roots"]
        self._kill: int = settings["kill"]
        self._hold: str = settings["hold"]
        self._main = main
        self._busy = threading.local()

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """What Python tells of itself."""
        if event in FILES:
            kind, place = FILES[event]
            self._file(kind, arguments[place])
        elif event == "open":
            path, _mode, flags = arguments
            if isinstance(flags, int) and flags & WRITING:
                self._file("write", path)
        elif event == "http.client.send":
            data = arguments[1]
            method, _, rest = bytes(data[:2000]).partition(b" ") if isinstance(data, bytes | bytearray) else (b"",) * 3
            if method.decode("latin-1") in CHANGES:
                self.note("request", f"{method.decode()} {rest.partition(b' ')[0].decode('latin-1')}")

    def _file(self, kind: str, path: object) -> None:
        if not isinstance(path, str | bytes | os.PathLike) or getattr(self._busy, "now", False):
            return
        full = os.path.join(os.getcwd(), os.fsdecode(path))
        for name, root in self._roots.items():
            if full.startswith(root + os.sep):
                self.note(kind, name + full[len(root) :])
                return

    def note(self, kind: str, what: str) -> None:
        """A side effect comes now."""
        if getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            # One after the other, whichever process it is: the number is the same for all of them.
            journal = os.open(self._journal, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                fcntl.flock(journal, fcntl.LOCK_EX)
                number = os.pread(journal, os.fstat(journal).st_size, 0).count(b"\n") + 1
                os.write(journal, f"{kind}\t{what}\n".encode())
                if number == self._kill:
                    for process in (self._main, os.getpid()):
                        os.kill(process, signal.SIGKILL)
            finally:
                os.close(journal)
            if self._hold and re.search(self._hold, f"{kind} {what}") and not os.path.exists(self._journal + ".held"):
                with open(self._journal + ".held", "w"):
                    pass
                while not os.path.exists(self._journal + ".go"):
                    time.sleep(0.02)
        finally:
            self._busy.now = False

    def watch_databases(self, module: ModuleType) -> None:
        """A commit of what was written; one that only read is no side effect."""
        from sqlalchemy.engine import Engine

        def executed(connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            if statement.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE", "CREATE")):
                connection.info["drill"] = True

        def commit(connection: Any) -> None:
            if connection.info.pop("drill", False):
                self.note("commit", "database")

        module.event.listen(Engine, "before_cursor_execute", executed)
        module.event.listen(Engine, "commit", commit)

    def watch_store(self, module: ModuleType) -> None:
        """A request of s3fs that changes something."""
        session: Any = module.AIOHTTPSession
        send = session.send

        async def noted(this: Any, request: Any) -> Any:
            if request.method in CHANGES:
                self.note("store", f"{request.method} {request.url.partition('?')[0].split('/', 3)[-1]}")
            return await send(this, request)

        session.send = noted


class Afterwards(importlib.abc.MetaPathFinder):
    """Calls a function with a module when that has been imported."""

    def __init__(self, calls: dict[str, Callable[[ModuleType], None]]) -> None:
        self._calls = calls

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec that Python finds, with a loader that calls the function at its end."""
        if name not in self._calls:
            return None
        call = self._calls.pop(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        loader = spec and spec.loader
        if loader is None:
            return None
        load = loader.exec_module

        def then(module: ModuleType) -> None:
            load(module)
            call(module)

        loader.exec_module = then  # type: ignore[method-assign]
        return spec


def begin() -> None:
    """Watches this process, where the environment says so."""
    if SETTINGS not in os.environ:
        return
    os.environ.setdefault(MAIN, str(os.getpid()))
    recorder = Recorder(json.loads(os.environ[SETTINGS]), int(os.environ[MAIN]))
    calls = {"sqlalchemy": recorder.watch_databases, "aiobotocore.httpsession": recorder.watch_store}
    sys.meta_path.insert(0, Afterwards(calls))
    sys.addaudithook(recorder.audit)


begin()
