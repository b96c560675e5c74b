"""How a long-running step reports what it is doing, without knowing who listens.

A step emits events; the listener is a terminal, a log, or the run driver, which tails the JSON lines in the
file that `IFAS_EVENTS` names (this is how a step inside a kfp.local subprocess reaches the user's terminal).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

EVENTS_ENV = "IFAS_EVENTS"
_deliver: Callable[[dict[str, Any]], None] | None = None


def deliver(to: Callable[[dict[str, Any]], None] | None) -> None:
    """Events of this process go to `to` from now on, as where no file reaches the listener; None: as before."""
    global _deliver
    _deliver = to


def emit(kind: str, step: str, **fields: Any) -> None:
    """Emits one event.

    Kinds: `start` (about), `progress` (done, total, unit), `note` (text), `done` (summary, seconds, reused), `failed`
    (what, fix, code). Without a listener, `note` and `done` are printed to standard error.
    """
    forward({"t": round(time.time(), 3), "kind": kind, "step": step, **fields})


def forward(event: dict[str, Any]) -> None:
    """Passes on an event, as another process emitted it."""
    path = os.environ.get(EVENTS_ENV)
    if _deliver is not None:
        _deliver(event)
    elif path:
        # One write of one line: O_APPEND keeps lines of several processes whole.
        with open(path, "ab", buffering=0) as f:
            f.write(f"{json.dumps(event)}\n".encode())
    elif event["kind"] in ("note", "done") and not event.get("quiet"):
        print(render(event), file=sys.stderr, flush=True)


def render(event: dict[str, Any]) -> str:
    """One readable line for a `note` or `done` event."""
    if event["kind"] == "done":
        how = f"reused: {event['reused']}" if event.get("reused") else f"{event['seconds']:.1f} s"
        return f"{event['step']:<9} {event['summary']}  [{how}]"
    return f"{event['step']:<9} {event.get('text', '')}"


@dataclass
class Progress:
    """Progress of one loop. Emits at most every `every` seconds, and at the end.

    Example:
        >>> progress = Progress("caption", total=3, unit="images")
        >>> for _ in range(3):
        ...     progress.advance()
    """

    step: str
    total: int
    unit: str = "images"
    every: float = 0.5
    done: int = 0
    _last: float = field(default=0.0, repr=False)

    def advance(self, n: int = 1, **extra: Any) -> None:
        """Counts `n` more units done; `extra` (loss, ...) is shown beside the bar."""
        self.done += n
        now = time.monotonic()
        if self.done >= self.total or now - self._last >= self.every:
            self._last = now
            emit("progress", self.step, done=self.done, total=self.total, unit=self.unit, **extra)
