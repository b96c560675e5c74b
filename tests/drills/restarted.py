"""Drills: the trigger is killed and started again; KFP's token is no longer good."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ifas.trigger.store import Store
from tests.drills.chain import Failed
from tests.drills.effects import Effect, Journal, sample
from tests.drills.table import World, drill
from tests.servers_kfp import Kfp, kfp_server
from tests.servers_trigger import Server, event, trigger_server, write_file

#: Events of one try: two things, and a newer event on one of them.
SENT = ("one", "two", "one")


class Trigger:
    """A trigger with its database and a KFP of its own."""

    def __init__(self, folder: Path, store: str, api: Kfp) -> None:
        self.folder, self.url, self.api = folder, store, api
        self.file = write_file(folder / "trigger.yaml", cooldown_hours=0)
        self.store = Store(store)
        self.acknowledged: list[str] = []

    @contextmanager
    def serving(self, journal: Journal | None = None) -> Iterator[Server]:
        given = {**(journal.environment if journal else {}), "IFAS_HOME": str(self.folder / "home")}
        with patch.dict(os.environ, given):
            starting = trigger_server(self.file, self.url, self.api.url, self.folder / "log")
            server = starting.__enter__()
        try:
            yield server
        finally:
            starting.__exit__(None, None, None)

    def send(self, server: Server, number: int) -> bool:
        """Sends an event, as a sender does; whether it was acknowledged."""
        try:
            status, _ = server.send(event(f"event-{number}", dataset=SENT[number]))
        except (OSError, http.client.HTTPException):
            return False
        if status != 202:
            raise Failed(f"the trigger answered {status}")
        return True

    def events(self) -> list[dict[str, Any]]:
        return list(self.store.listed(limit=1000)["events"])

    def until(self, met: Callable[[], bool], what: str, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while not met():
            if time.monotonic() > end:
                found = json.dumps(self.events(), indent=1)
                raise Failed(f"{found}\n{(self.folder / 'log').read_text()[-3000:]}\n{what}: not in {seconds:.0f} s")
            time.sleep(0.1)

    def decided(self) -> bool:
        return all(one["state"] not in ("new", "starting", "held") for one in self.events())

    def faults(self) -> list[str]:
        """What is wrong when all events were sent and decided."""
        found = []
        events = {one["id"]: one for one in self.events()}
        if set(events) != {f"event-{number}" for number in range(len(SENT))}:
            found.append(f"it has the events {sorted(events)}")
        names = [one["run"] for one in events.values() if one["state"] == "started"]
        for name in names:
            live = [run for run in self.api.runs_named(name) if run.state != "CANCELING"]
            if len(live) != 1:
                found.append(f"there are {len(live)} runs {name}")
        if odd := {run.display_name for run in self.api.runs.values()} - set(names):
            found.append(f"nobody decided on the runs {sorted(odd)}")
        last = events.get(f"event-{len(SENT) - 1}", {})
        if last.get("state") != "started":
            found.append(f"the newest event is {last.get('state')}, not started")
        return found


def restart(world: World, database: Callable[[Path], str]) -> str:
    """Kills the service at its side effects while events come in, and starts it again."""

    def fresh(api: Kfp) -> Trigger:
        folder = world.folder("trigger")
        return Trigger(folder, database(folder), api)

    def journal(trigger: Trigger, kill: int = 0) -> Journal:
        return Journal(trigger.folder / "journal", {"nothing": trigger.folder / "nothing"}, kill=kill)

    def all_sent(trigger: Trigger, kill: int = 0) -> tuple[list[Effect], int]:
        """Sends all events, again where they were not acknowledged; the side effects and how many were acknowledged
        by the service that was then killed."""
        seen = journal(trigger, kill)
        acknowledged = 0
        with trigger.serving(seen) as server:
            for number in range(len(SENT)):
                acknowledged += trigger.send(server, number)
            if kill:
                trigger.until(lambda: server.process.poll() is not None, "it is killed")
            else:
                trigger.until(trigger.decided, "all is decided")
        if kill:
            with trigger.serving() as server:
                for number in range(acknowledged, len(SENT)):
                    if not trigger.send(server, number):
                        raise Failed("the service that was started again does not answer")
                trigger.until(trigger.decided, "all is decided")
        if found := trigger.faults():
            raise Failed("; ".join(found))
        return seen.effects(), acknowledged

    with kfp_server() as api:
        effects, _ = all_sent(fresh(api))
    chosen = sample(effects, world.kills)
    between = 0
    for effect in chosen:
        with kfp_server() as api:
            trigger = fresh(api)
            try:
                _, acknowledged = all_sent(trigger, effect.number)
            except Failed as failure:
                raise Failed(f"{failure}\nkilled before {effect.number} of {len(effects)}, {effect}") from failure
            between += acknowledged > 0
            print(f"   killed before {effect.number}, {effect}; {acknowledged} were acknowledged", flush=True)
    return f"killed at {len(chosen)} of {len(effects)} side effects, {between} times after it had acknowledged an event"


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'trigger.db'}"


@drill("trigger: SQLite", "`ifas trigger serve` is killed while it takes events and starts runs, and started again")
def trigger_on_sqlite(world: World) -> str:
    return restart(world, sqlite)


@drill("trigger: PostgreSQL", "the same with its database in PostgreSQL")
def trigger_on_postgresql(world: World) -> str:
    return restart(world, lambda _folder: world.database())


@drill("trigger: KFP away", "it is killed between 202 and the start of a run, while KFP is away, and started again")
def killed_in_between(world: World) -> str:
    with kfp_server() as api:
        folder = world.folder("trigger")
        trigger = Trigger(folder, sqlite(folder), api)
        api.down = 503
        with trigger.serving() as server:
            for number in range(len(SENT)):
                if not trigger.send(server, number):
                    raise Failed("an event was not acknowledged")
            trigger.until(lambda: any(one["attempts"] for one in trigger.events()), "a start was tried")
            server.kill()
        if api.runs:
            raise Failed("a run was started while KFP was away")
        api.down = 0
        with trigger.serving():
            trigger.until(trigger.decided, "all is decided")
        if found := trigger.faults():
            raise Failed("; ".join(found))
    return f"{len(SENT)} events acknowledged, none lost, one run each of those that were due"


@drill("expired token: KFP", "KFP takes another token than the trigger has; then the new one is put into its file")
def token_of_kfp(world: World) -> str:
    with kfp_server(token="new") as api:
        folder = world.folder("trigger")
        trigger = Trigger(folder, sqlite(folder), api)
        token = folder / "token"
        token.write_text("old")
        with patch.dict(os.environ, {"KFP_TOKEN_FILE": str(token)}), trigger.serving() as server:
            for number in range(len(SENT)):
                if not trigger.send(server, number):
                    raise Failed("an event was not acknowledged")
            trigger.until(lambda: any(one["attempts"] for one in trigger.events()), "a start was tried")
            said = (folder / "log").read_text()
            if "401" not in said or "token" not in said.lower():
                raise Failed(f"{said}\nthe log does not name the token")
            token.write_text("new")
            trigger.until(trigger.decided, "all is decided")
        if found := trigger.faults():
            raise Failed("; ".join(found))
    return "the log named the token; with the new one, without a restart, one run of each was started"
