"""Follows the log of a RayJob: its events and lines appear here as if the step ran here."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from ifas.core.errors import IfasError
from ifas.core.progress import EVENTS_ENV, emit
from ifas.launch.cluster import try_get

#: Seconds between two lines of progress where only a log shows it.
SHOWN_EVERY_S = 30

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")


class Follower:
    """What the log of the job's submitter has said so far.

    Attributes:
        failure: the step's own error, once it told one.
    """

    def __init__(self, api: Any, namespace: str, name: str, step: str) -> None:
        self.api, self.namespace, self.name, self.step = api, namespace, name, step
        self.failure: IfasError | None = None
        self._last = ("", "")
        self._told: set[int] = set()
        self._shown = 0.0

    def look(self) -> None:
        """Passes on what is new in the log. A request that fails is made up for by the next."""
        for stamp, line in self._new_lines():
            if stamp <= self._last:
                continue  # `sinceTime` counts whole seconds
            self._last = stamp
            event = _event(line)
            if event is None:
                print(line, flush=True)
            elif hash(line) not in self._told:  # a new submitter prints the job's log from its beginning
                self._told.add(hash(line))
                self._pass_on(event)

    def _pass_on(self, event: dict[str, Any]) -> None:
        kind = event["kind"]
        if kind == "failed":
            self.failure = IfasError(event["what"], event["fix"])
            self.failure.exit_code = int(event["code"])
            self.failure.repeat = bool(event.get("repeat"))
            return
        emit(kind, event["step"], **{k: v for k, v in event.items() if k not in ("t", "kind", "step")})
        if kind == "progress" and not os.environ.get(EVENTS_ENV) and time.monotonic() - self._shown >= SHOWN_EVERY_S:
            self._shown = time.monotonic()
            print(f"{event['step']:<9} {event['done']} of {event['total']} {event['unit']}", flush=True)

    def _new_lines(self) -> list[tuple[tuple[str, str], str]]:
        place = f"/api/v1/namespaces/{self.namespace}/pods"
        pods = try_get(self.api, place, [("labelSelector", f"job-name={self.name}")], "object")
        items = pods.get("items", []) if isinstance(pods, dict) else []
        if not items:
            return []
        newest = max(items, key=lambda pod: pod["metadata"].get("creationTimestamp") or "")
        query = [("container", "ray-job-submitter"), ("timestamps", "true")]
        if self._last[0]:
            query.append(("sinceTime", f"{self._last[0]}Z"))
        text = try_get(self.api, f"{place}/{newest['metadata']['name']}/log", query, "str")
        lines = (line.partition(" ") for line in text.split("\n")) if isinstance(text, str) else ()
        # What has no time is the kubelet's own word, e.g. that there is no log yet.
        return [(when, line) for stamp, _, line in lines if (when := _comparable(stamp))]


@contextmanager
def following(api: Any, namespace: str, name: str, step: str, *, poll_s: float = 5) -> Iterator[Follower]:
    """Inside the block the log of RayJob `name` is read every `poll_s` seconds, and once more at the end."""
    follower, ended = Follower(api, namespace, name, step), threading.Event()

    def follow() -> None:
        while not ended.wait(poll_s):
            follower.look()

    thread = threading.Thread(target=follow, name="log", daemon=True)
    thread.start()
    try:
        yield follower
    finally:
        ended.set()
        thread.join()
        follower.look()


def _event(line: str) -> dict[str, Any] | None:
    """An event of `ifas.core.progress`, or None where the line is something else."""
    if not line.startswith('{"t":'):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"t", "kind", "step"} <= found.keys() else None


def _comparable(stamp: str) -> tuple[str, str] | None:
    """Seconds in UTC and nanoseconds of an RFC 3339 time, or None where it is something else.

    The kubelet writes it with its node's own offset, and without zeros at the end.
    """
    parts = _STAMP.fullmatch(stamp)
    if parts is None:
        return None
    seconds = datetime.fromisoformat(parts[1] + parts[3]).astimezone(UTC)
    return f"{seconds:%Y-%m-%dT%H:%M:%S}", (parts[2] or "").ljust(9, "0")
