"""Drills: the store is away for a minute; its key is no longer good."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from ifas.core import storage
from ifas.core.errors import DataError
from ifas.data.registry import Registry
from tests.drills.chain import Failed, Place
from tests.drills.effects import Journal
from tests.drills.table import World, drill
from tests.drills.uris import Staged, credentials, environment
from tests.servers import Endpoint


def require(text: str, *parts: str) -> None:
    """Raises Failed where a message lacks one of these."""
    lacking = [part for part in parts if part not in text]
    if lacking:
        raise Failed(f"{text[-4000:]}\nit does not say: {', '.join(lacking)}")


def finish(staged: Staged, place: Place, words: list[str], outputs: dict[str, str]) -> None:
    """Runs the command and compares what it left. Raises Failed."""
    place.run(words).require(0)
    if found := staged.faults(place, outputs):
        raise Failed(f"the rerun left something else: {'; '.join(found)}")


@drill("store away: train", "the store is stopped while a checkpoint is uploaded, and comes back after a minute")
def away_in_the_middle(world: World) -> str:
    staged = Staged(world, "train")
    place, words, outputs = staged.place()
    journal = Journal(place.root / "journal", place.roots, hold=r"store PUT .*checkpoint_")
    running = place.start(words, journal)
    running.held(journal)
    staged.store.stop()
    try:
        journal.go()
        time.sleep(world.away)
        if running.process.poll() is not None:
            raise Failed(f"{running.text()[-4000:]}\nit ended while the store was away")
    finally:
        staged.store.start()
    running.ended().require(0)
    require(Path(place.environment["IFAS_EVENTS"]).read_text(), "does not answer", "the store is back")
    if found := staged.faults(place, outputs):
        raise Failed("; ".join(found))
    return f"the step waited {world.away:.0f} s and finished"


@drill("store away: caption", "the store is stopped before the step begins")
def away_at_the_start(world: World) -> str:
    staged = Staged(world, "caption")
    place, words, outputs = staged.place()
    staged.store.stop()
    try:
        first = place.run(words).require(3)
    finally:
        staged.store.start()
    require(first.text, "can't be used", "fix: check AWS_ENDPOINT_URL")
    wait_for(staged.store)
    finish(staged, place, words, outputs)
    return "ended with 3 and named the address; the rerun finished"


@drill("store away: ingest", "the registry's remote, in S3, is stopped before the step begins")
def remote_away(world: World) -> str:
    chain, store = world.chain, world.store
    chain.undisturbed("ingest")
    folder = world.folder("registry")
    with credentials(store):
        registry = Registry.init(folder / "registry", f"s3://{store.bucket}/{folder.name}", endpoint=store.url)
        registry.publish(chain.root / "packed")
    place = chain.place(f"ingest.registry={registry.path}", environment=environment(store))
    place.environment["IFAS_EVENTS"] = str(place.root / "events")
    words = place.step("ingest", {})
    store.stop()
    try:
        first = place.run(words).require(3)
    finally:
        store.start()
    require(first.text, "fix: check that the remote runs")
    require(Path(place.environment["IFAS_EVENTS"]).read_text(), '"repeat": true')
    wait_for(store)
    place.run(words).require(0)
    if found := chain.faults("ingest", place):
        raise Failed(f"the rerun left something else: {'; '.join(found)}")
    return "ended with 3 and named the remote, as what a cluster tries again; the rerun finished"


@drill("expired key: S3", "the store's key is changed while a step uploads its output")
def key_of_the_store(world: World) -> str:
    staged = Staged(world, "caption")
    place, words, outputs = staged.place()
    journal = Journal(place.root / "journal", place.roots, hold=r"store PUT .*out/captions/")
    running = place.start(words, journal)
    running.held(journal)
    old, new = staged.store, replace(staged.store, access_key="ifas-new", secret_key="ifas-new-secret")
    staged.store.renew(new.access_key, new.secret_key)
    try:
        staged.store = new
        wait_for(staged.store)
        journal.go()
        first = running.ended().require(3)
        require(first.text, "can't be used", "fix: check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID")
        # Still with the old key.
        require(place.run(words).require(3).text, "fix: check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID")
        place.environment |= environment(new)
        finish(staged, place, words, outputs)
    finally:
        old.renew(old.access_key, old.secret_key)
        staged.store = old
        wait_for(staged.store)
    return "ended with 3 and named the key, the rerun with the old key, too; with the new key it finished"


def wait_for(store: Endpoint, seconds: float = 60) -> None:
    """Until the store answers this drill's key."""
    until = time.monotonic() + seconds
    while True:
        try:
            with credentials(store):
                storage.exists(f"s3://{store.bucket}/staged")
            return
        except DataError:
            if time.monotonic() > until:
                raise
            time.sleep(0.3)
