"""Follows the log of a RayJob: its events and lines appear here as if the step ran here."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ifas.core.errors import IfasError
from ifas.core.progress import EVENTS_ENV, emit

#: Seconds between two lines of progress where only a log shows it.
SHOWN_EVERY_S = 30


class Follower:
    """What the log of the job's submitter has said so far.

    Attributes:
        failure: the step's own error, once it told one.
    """

    def __init__(self, api: Any, namespace: str, name: str, step: str) -> None:
        self.api, self.namespace, self.name, self.step = api, namespace, name, step
        self.failure: IfasError | None = None
        self._last = ("", "")
        self._event_t = 0.0
        self._shown = 0.0

    def look(self) -> None:
        """Passes on what is new in the log. A request that fails is made up for by the next."""
        for stamp, line in self._new_lines():
            if _comparable(stamp) <= self._last:
                continue  # `sinceTime` counts whole seconds
            self._last = _comparable(stamp)
            event = _event(line)
            if event is None:
                print(line, flush=True)
            elif event["t"] > self._event_t:  # a new submitter prints the job's log from its beginning
                self._event_t = event["t"]
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

    def _new_lines(self) -> list[tuple[str, str]]:
        pods = self._get("pods", [("labelSelector", f"job-name={self.name}")], "object")
        items = pods.get("items", []) if isinstance(pods, dict) else []
        if not items:
            return []
        newest = max(items, key=lambda pod: pod["metadata"].get("creationTimestamp") or "")
        query = [("container", "ray-job-submitter"), ("timestamps", "true")]
        if self._last[0]:
            query.append(("sinceTime", f"{self._last[0]}Z"))
        text = self._get(f"pods/{newest['metadata']['name']}/log", query, "str")
        lines = (line.partition(" ") for line in text.splitlines()) if isinstance(text, str) else ()
        return [(stamp, line) for stamp, _, line in lines]

    def _get(self, path: str, query: list[tuple[str, str]], kind: str) -> Any:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return self.api.call_api(
                f"/api/v1/namespaces/{self.namespace}/{path}",
                "GET",
                {},
                query,
                {"Accept": "application/json, */*"},
                response_type=kind,
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=30,
            )
        except (ApiException, HTTPError, OSError):
            return None


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


def _comparable(stamp: str) -> tuple[str, str]:
    """Seconds and nanoseconds of an RFC 3339 time, which the kubelet writes without zeros at the end."""
    seconds, _, rest = stamp.rstrip("Z").partition(".")
    return seconds, rest.ljust(9, "0")
