"""Shows a run's events on the terminal while they are written: progress bars for long work, one line per step."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ifas.core.progress import EVENTS_ENV, render


class _Follower(threading.Thread):
    """Follows the events file and shows it on `out` until it is stopped."""

    def __init__(self, path: Path, out: IO[str]) -> None:
        super().__init__(daemon=True)
        self.path, self.out = path, out
        # Skip events of an earlier command.
        self.start_at = path.stat().st_size
        self.finished = threading.Event()
        self.failure: dict[str, Any] | None = None
        self._partial = ""

    def run(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(file=self.out, highlight=False, soft_wrap=True)
        columns = TextColumn("{task.description:<9}"), BarColumn(28), MofNCompleteColumn()
        extra = TextColumn("{task.fields[unit]} {task.fields[note]}"), TimeRemainingColumn()
        with Progress(*columns, *extra, console=console, transient=True, disable=not console.is_terminal) as bars:
            tasks: dict[str, Any] = {}
            with self.path.open(encoding="utf-8") as file:
                file.seek(self.start_at)
                while True:
                    last = self.finished.is_set()
                    for event in self._events(file):
                        self._draw(event, console, bars, tasks)
                    if last:
                        return
                    self.finished.wait(0.1)

    def _events(self, file: IO[str]) -> Iterator[dict[str, Any]]:
        for line in file:
            self._partial += line
            if self._partial.endswith("\n"):
                yield json.loads(self._partial)
                self._partial = ""

    def _draw(self, event: dict[str, Any], console: Any, bars: Any, tasks: dict[str, Any]) -> None:
        kind, step = event["kind"], event["step"]
        if kind == "progress":
            losses = (f"{part} {event[part]:.2f}" for part in ("judgment", "interpretation") if part in event)
            note = ", ".join(losses)
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=event["total"], unit=event["unit"], note=note)
            bars.update(tasks[step], completed=event["done"], total=event["total"], unit=event["unit"], note=note)
        elif kind == "failed":
            self.failure = event
        elif kind == "done" or (kind == "note" and not event.get("quiet")):
            if kind == "done" and step in tasks:
                bars.remove_task(tasks.pop(step))
            console.print(render(event), markup=False)


@contextmanager
def following(path: Path, descriptor: int = 1) -> Iterator[_Follower]:
    """Shows the events that this process and its children emit; they are kept in `path`.

    Args:
        descriptor: 1 or 2: standard output, or standard error where standard output is for a machine.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    before = os.environ.get(EVENTS_ENV)
    os.environ[EVENTS_ENV] = str(path.absolute())
    # A copy of the descriptor: the run may send standard output itself to a log.
    with os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as out:
        follower = _Follower(path, out)
        follower.start()
        try:
            yield follower
        finally:
            follower.finished.set()
            follower.join()
            if before is None:
                del os.environ[EVENTS_ENV]
            else:
                os.environ[EVENTS_ENV] = before
