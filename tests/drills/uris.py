"""A step whose inputs, outputs and kept results lie in a real object store, as those of a pod or a RayJob."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from ifas.core import storage
from ifas.steps.contract import STEPS
from ifas.steps.execute import LINEAGE
from tests.drills.chain import Place
from tests.drills.table import World
from tests.servers import Endpoint


@contextmanager
def credentials(store: Endpoint) -> Iterator[None]:
    """Inside the block, this process reaches the store."""
    import s3fs

    # One that was made with an earlier key would be found again.
    s3fs.S3FileSystem.clear_instance_cache()
    with patch.dict(os.environ, environment(store)):
        yield


def environment(store: Endpoint) -> dict[str, str]:
    """For a process that is to reach the store."""
    return {**store.env, "AWS_ENDPOINT_URL": store.url}


class Staged:
    """The inputs of a step, uploaded once, and tries with URIs."""

    def __init__(self, world: World, step: str) -> None:
        self.world, self.step, self.chain, self.store = world, step, world.chain, world.store
        self.prefix = f"s3://{self.store.bucket}/{world.folder('staged').name}"
        self.inputs: dict[str, str | Path] = {}
        with credentials(self.store):
            for name, path in self.chain.inputs(step).items():
                storage.store(path, f"{self.prefix}/in/{name}")
                self.inputs[name] = f"{self.prefix}/in/{name}"
        self._tries = 0

    def place(self) -> tuple[Place, list[str], dict[str, str]]:
        """Folders, the words of the command, and the URI of each output."""
        self._tries += 1
        here = f"{self.prefix}/{self._tries}"
        place = self.chain.place(f"cluster.storage={here}/kept", environment=environment(self.store))
        place.environment["IFAS_EVENTS"] = str(place.root / "events")
        outputs = {name: f"{here}/out/{name}" for name in (*STEPS[self.step].outputs, LINEAGE)}
        return place, place.step(self.step, self.inputs, outputs), outputs

    def faults(self, place: Place, outputs: dict[str, str]) -> list[str]:
        """What is not as in the undisturbed run."""
        fetched = place.root / "fetched"
        with credentials(self.store):
            for name, uri in outputs.items():
                storage.fetch(uri, fetched / name)
        return self.chain.faults(self.step, place, out=fetched)

    def objects(self, outputs: dict[str, str]) -> set[str]:
        """Names of all objects of a try: outputs, their records, kept results."""
        with credentials(self.store):
            return set(storage.sizes(outputs[LINEAGE].rpartition("/out/")[0]))
