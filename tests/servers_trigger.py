"""A real trigger service for tests and benchmarks: `ifas trigger serve` in a process of its own."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from ifas.trigger.events import STRUCTURED
from ifas.trigger.signature import sign

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
SECRETS = {
    "TRIGGER_SECRET_REGISTRY": "whsec_" + base64.b64encode(KEY).decode(),
    "TRIGGER_SECRET_REVIEW": "whsec_" + base64.b64encode(OTHER_KEY).decode(),
}
REVISED, RELEASED, DRIFT, APPROVED = (
    "dev.ifas.dataset.revised",
    "dev.ifas.species.released",
    "dev.ifas.drift.detected",
    "dev.ifas.candidate.approved",
)
SOURCE = "https://registry.example.org/faces"
IMAGE = "registry.example.org/ifas@sha256:" + "1" * 64
PODS = {
    "cluster.image": IMAGE,
    "cluster.storage": "s3://ifas/kept",
    "ingest.registry": "https://git.example.org/faces.git",
}
FILE: dict[str, Any] = {
    # Many senders come from one address here.
    "clients": {"per_second": 100_000, "burst": 100_000},
    "senders": {
        "registry": {"secret": "TRIGGER_SECRET_REGISTRY", "source": SOURCE, "types": [REVISED, RELEASED, DRIFT]},
        "review": {"secret": "TRIGGER_SECRET_REVIEW", "source": "https://review.example.org", "types": [APPROVED]},
    },
    "rules": {
        "new-data": {
            "events": [REVISED, RELEASED],
            "run": "retrain",
            "config": "tiny",
            "set": PODS,
            "parameters": {"ingest.dataset": "dataset", "ingest.revision": "revision"},
            "cooldown_hours": 1,
            "runs_per_day": 100,
        },
        "approved": {
            "events": [APPROVED],
            "run": "release",
            "config": "tiny",
            "set": PODS,
            "arguments": {"candidate": "record", "model": "model", "evaluation": "evaluation", "lineage": "lineage"},
        },
    },
}


def write_file(path: Path, clients: Mapping[str, Any] | None = None, **rule: Any) -> Path:
    """The trigger's file; `rule` changes the rule new-data, its `set` beside what pods need."""
    rule["set"] = {**PODS, **rule.get("set", {})}
    rules = {**FILE["rules"], "new-data": {**FILE["rules"]["new-data"], **rule}}
    path.write_text(yaml.safe_dump({**FILE, "clients": dict(clients or FILE["clients"]), "rules": rules}))
    return path


def event(id: str, dataset: str = "faces", revision: str = "v1", **attributes: Any) -> dict[str, Any]:
    """A new revision of a dataset as a CloudEvent."""
    said = {"specversion": "1.0", "id": id, "source": SOURCE, "type": REVISED, "time": datetime.now(UTC).isoformat()}
    return {**said, "data": {"dataset": dataset, "revision": revision}, **attributes}


@dataclass
class Server:
    """A running service. `log` is what it wrote to standard error."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def connect(self) -> http.client.HTTPConnection:
        """A connection to it."""
        parts = urlsplit(self.url)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)

    def request(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Any:
        """(status, text) of an answer."""
        connection = self.connect()
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def send(self, what: Any, key: bytes = KEY, at: datetime | None = None, **headers: str) -> Any:
        """(status, text) of the answer to an event in structured mode."""
        body = what if isinstance(what, bytes) else json.dumps(what).encode()
        all_headers = {"content-type": STRUCTURED, **headers}
        return self.request("POST", "/events", body, {**all_headers, **sign(all_headers, body, key, at)})

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def trigger_server(
    file: Path, store: str, endpoint: str, log: Path, *, before: tuple[str, ...] = (), port: int = 0
) -> Iterator[Server]:
    """The service on a port of its own, killed at the end.

    Args:
        before: words in front of the command, such as `taskset -c 0`.
    """
    ifas = str(Path(sys.executable).with_name("ifas"))
    command = [*before, ifas, "trigger", "serve", str(file), "--endpoint", endpoint]
    environment = {**os.environ, **SECRETS, "IFAS_TRIGGER_STORE": store}
    with log.open("a") as errors:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://[\d.]+:\d+", line)
        if not found:
            raise RuntimeError(f"the trigger did not start: {line}{log.read_text()[-2000:]}")
        yield Server(found[0], process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close() if process.stdout else None
