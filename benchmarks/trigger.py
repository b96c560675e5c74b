"""`python -m benchmarks.trigger`: how many events a second the trigger keeps on one core, and whether any is lost.

A real `ifas trigger serve` is bound to one core; the senders and the stand-in for KFP have the other cores. Each sender
sends signed events one after the other over one connection, and notes those that were answered 202. In the second part
the service is killed (SIGKILL) again and again while events come in, and started again on the same database. Then every
noted event must be there, every run must have been made once, and what was sent again must be a duplicate.

A killed process loses what it had in memory, a power cut what the disk was not made to write. The second is not tested
here: SQLite is told to wait for the disk at every commit (`tests/unit/trigger/test_store.py` reads that setting back).
The time that one such wait takes on this disk is measured, too: `one event at a time` is bounded by it.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.figure import figure
from ifas.trigger.events import STRUCTURED
from ifas.trigger.signature import sign
from ifas.trigger.store import Store
from tests.servers_kfp import Kfp, kfp_server
from tests.servers_trigger import KEY, Server, event, trigger_server, write_file

SENDERS = 32
SECONDS = 15.0
KILLS = 4
DATASETS = 10
RATE = 200.0


@dataclass
class Sent:
    """What the senders saw."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    milliseconds: list[float] = field(default_factory=list)
    unanswered: int = 0
    refused: list[str] = field(default_factory=list)


class Senders:
    """Threads that send until `stop`; a failed request is sent again, as a sender has to."""

    def __init__(self, server: Server, prefix: str, number: int = SENDERS) -> None:
        self.url = server.url
        self.sent = Sent()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(f"{prefix}-{n}",)) for n in range(number)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> Sent:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.sent

    def _send(self, prefix: str) -> None:
        host, port = self.url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        draw = random.Random(prefix)
        number = 0
        body = b""
        while not self._stop.is_set():
            body = body or json.dumps(event(f"{prefix}-{number}", dataset=f"d{draw.randrange(DATASETS)}")).encode()
            headers = {"content-type": STRUCTURED}
            headers |= sign(headers, body, KEY)
            began = time.perf_counter()
            try:
                connection.request("POST", "/events", body, headers)
                answer = connection.getresponse()
                status, said = answer.status, answer.read().decode()
            except (OSError, http.client.HTTPException):
                self.sent.unanswered += 1
                connection.close()
                time.sleep(0.1)
                continue
            if status == 202:
                self.sent.acknowledged[f"{prefix}-{number}"] = json.loads(said)["kept"]
                self.sent.milliseconds.append(1000 * (time.perf_counter() - began))
            else:
                self.sent.refused.append(f"{status} {said}")
                if status == 503:
                    time.sleep(0.1)
                    continue
            number += 1
            body = b""


def one_core() -> tuple[str, ...]:
    """Binds the service to one core, and this process to the others, where there are any."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[1:])
    return ("taskset", "-c", str(cores[0]))


def wait_for(place: Path) -> float:
    """Milliseconds that this disk takes to keep a small write."""
    taken = []
    with (place / "probe").open("wb") as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            file.flush()
            os.fsync(file.fileno())
            taken.append(1000 * (time.perf_counter() - began))
    return float(np.median(taken))


def rate(file: Path, place: Path, api: Kfp, core: tuple[str, ...]) -> bool:
    """How many events a second are kept, with many senders and with one."""
    ok = True
    with trigger_server(file, f"sqlite:///{place / 'rate.db'}", api.url, place / "rate.log", before=core) as server:
        time.sleep(2)
        single, began = Senders(server, "single", 1), time.perf_counter()
        time.sleep(SECONDS / 3)
        alone = len(single.stop().acknowledged) / (time.perf_counter() - began)
        many, began = Senders(server, "many"), time.perf_counter()
        time.sleep(SECONDS)
        sent = many.stop()
        spent = time.perf_counter() - began
        ok &= figure("events kept", len(sent.acknowledged) / spent, "events/s", bar=RATE, bar_is="value >=")
        figure("events kept, one event at a time", alone, "events/s")
        for share in (50, 99):
            figure(f"time to 202, {share} %", float(np.percentile(sent.milliseconds, share)), "ms")
        ok &= figure("refused", len(sent.refused) + sent.unanswered, "events", bar=0)
        began = time.perf_counter()
        store = Store(f"sqlite:///{place / 'rate.db'}")
        while store.listed("new", 1)["events"] and time.perf_counter() - began < 120:
            time.sleep(0.2)
        ok &= figure("all decided, after the last event", time.perf_counter() - began, "s", bar=60)
        store.close()
    return ok


def crashes(file: Path, place: Path, api: Kfp, core: tuple[str, ...]) -> bool:
    """Whether an acknowledged event is lost, or one run made twice, by kill -9."""
    url = f"sqlite:///{place / 'crash.db'}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sent: Sent | None = None
    senders: Senders | None = None
    for attempt in range(KILLS + 1):
        with trigger_server(file, url, api.url, place / "crash.log", before=core, port=port) as server:
            senders = senders or Senders(server, "crash")
            time.sleep(SECONDS / 3)
            if attempt < KILLS:
                server.kill()
                continue
            sent = senders.stop()
            store = Store(url)
            began = time.perf_counter()
            while any(store.listed(state, 1)["events"] for state in ("new", "starting")):
                if time.perf_counter() - began > 180:
                    break
                time.sleep(0.5)
    assert sent is not None
    found = {one["id"]: one for one in store.listed(limit=1_000_000)["events"]}
    store.close()
    runs = [one["run"] for one in found.values() if one["run"]]
    live = [sum(run.state != "CANCELING" for run in api.runs_named(name)) for name in runs]
    figure("kills", KILLS, "kill -9")
    figure("acknowledged", len(sent.acknowledged), "events")
    figure("requests without an answer, sent again", sent.unanswered, "requests")
    figure("kept before, but not acknowledged", sum(k == "duplicate" for k in sent.acknowledged.values()), "events")
    ok = figure("acknowledged and lost", len(set(sent.acknowledged) - set(found)), "events", bar=0)
    ok &= figure("runs started", len(runs), "runs", bar=1, bar_is="value >=")
    ok &= figure("runs that are not there exactly once", sum(number != 1 for number in live), "runs", bar=0)
    undecided = sum(one["state"] in ("new", "starting") for one in found.values())
    return ok & figure("events without a decision", undecided, "events", bar=0)


def main() -> int:
    """Prints the figures; 1 where a bar is missed."""
    core = one_core()
    with tempfile.TemporaryDirectory() as scratch, kfp_server() as api:
        place = Path(scratch)
        # The cool-down is over so soon that runs are started while the service is killed.
        file = write_file(place / "trigger.yaml", cooldown_hours=0.001, runs_per_day=20)
        figure("this disk keeps a write of 4 KiB", wait_for(place), "ms")
        ok = rate(file, place, api, core)
        ok &= crashes(file, place, api, core)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
