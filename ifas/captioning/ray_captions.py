"""Captioning on a cluster: Ray Data streams shards through a pool of actors, each with the captioner in its memory.

An actor reads a shard where the images' source has it for its machine, and returns the file of its captions. The driver
keeps that file, so a restarted run captions only the missing shards.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ifas.captioning.captioners import general_captioner
from ifas.captioning.parts import Part, Wanted, caption_shard, load, packed, part_file
from ifas.captioning.protocol import Captioner
from ifas.compute import relay
from ifas.compute.connection import connected
from ifas.core import storage
from ifas.core.config import CaptionConfig
from ifas.core.environment import prepare
from ifas.core.errors import DataError, IfasError, MachineError
from ifas.core.files import replacing
from ifas.core.home import home
from ifas.core.manifest import ImageSource
from ifas.core.progress import emit
from ifas.faces.finder import Finder

if TYPE_CHECKING:
    from ray.util.queue import Queue


#: How often an actor that died is started again; it then tries its shard again. Tries of a task itself are not
#: limited: while an actor's machine is lost, each call to it counts as one.
RESTARTS = 3


class _Begun(NamedTuple):
    """What an actor tells when it begins with a shard."""

    shard: str
    actor: str
    node: str


class _Captioning:
    """What each actor of the pool runs."""

    def __init__(self, images: ImageSource, config: CaptionConfig, finder: Finder | None, queue: Queue) -> None:
        import ray

        prepare()
        relay.join(queue)
        here = ray.get_runtime_context()
        self.actor, self.node = str(here.get_actor_id()), here.get_node_id()
        self.images, self.config, self.finder, self.queue = images, config, finder, queue
        self.general: Captioner | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch is one shard: `rows` holds its rows as a list of plain values."""
        return {"shard": batch["shard"], "part": [self._part(_rows(str(text))) for text in batch["rows"]]}

    def _part(self, rows: list[Wanted]) -> bytes:
        relay.send(self.queue, _Begun(rows[0].shard, self.actor, self.node))
        try:
            # The driver has reached the store before: one that is away comes back.
            with storage.patient():
                self.general = self.general or general_captioner(self.config)
                return packed(caption_shard(rows, self.images, self.general, self.config, self.finder))
        except IfasError as error:
            # Ray would wrap it, or try again.
            relay.send(self.queue, error)
            return b""
        finally:
            relay.send_peak(self.queue)


def ray_parts(
    shards: Sequence[Sequence[Wanted]],
    images: ImageSource,
    config: CaptionConfig,
    folder: Path,
    finder: Finder | None = None,
    uri: str = "",
) -> Iterator[Part]:
    """The part of each shard, in order. Shards whose part is in `folder` are not captioned again.

    Args:
        folder: on this machine.
        uri: where the files of `folder` are kept as well, for a driver that goes on elsewhere; empty: nowhere.

    Raises:
        IfasError: that of an actor, such as a shard that it could not read.
        MachineError: an actor died too often.
    """
    if uri:
        for name in set(storage.listing(uri)) - {file.name for file in folder.glob("*")}:
            storage.fetch(f"{uri}/{name}", folder / name)
    files = [part_file(folder, rows, config, finder) for rows in shards]
    missing = [n for n, rows in enumerate(shards) if load(files[n], len(rows)) is None]
    if missing:
        with storage.patient():
            for n, made in _made({n: shards[n] for n in missing}, images, config, finder):
                with replacing(files[n]) as beside:
                    beside.write_bytes(made)
                if uri:
                    storage.store(files[n], f"{uri}/{files[n].name}")
    for n, rows in enumerate(shards):
        part = load(files[n], len(rows))
        if part is None:
            raise DataError(f"the captions of shard {rows[0].shard} in {files[n]} are damaged", "run the step again")
        yield part


def _made(
    shards: dict[int, Sequence[Wanted]], images: ImageSource, config: CaptionConfig, finder: Finder | None
) -> Iterator[tuple[int, bytes]]:
    """Files of parts, in the order in which actors finish them."""
    # Pinned, so that all machines have the same weights.
    config = config.model_copy(update={"model": storage.pin(config.model)})
    said: list[Any] = []
    dead = ""
    with _cluster(config):
        import pyarrow as pa
        import ray.data
        from ray.exceptions import OutOfMemoryError, RayActorError

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        # Tables, since other sources have tasks that read, and these need a CPU that no actor then gets.
        tables = [pa.table({"shard": [n], "rows": [json.dumps(rows)]}) for n, rows in shards.items()]
        with relay.heard() as (queue, said):
            done = (
                ray.data.from_arrow(tables)
                .map_batches(
                    _Captioning,
                    fn_constructor_kwargs={"images": images, "config": config, "finder": finder, "queue": queue},
                    batch_size=1,
                    compute=ray.data.ActorPoolStrategy(size=config.actors),
                    num_gpus=config.gpus_per_actor or None,
                    num_cpus=None if config.gpus_per_actor else 1,
                    max_restarts=RESTARTS,
                )
                .iter_rows()
            )
            try:
                for row in done:
                    if not row["part"]:
                        break
                    yield int(row["shard"]), bytes(row["part"])
            except (RayActorError, OutOfMemoryError) as error:
                dead = str(error).partition("\n")[0]
    failed = [one for one in said if isinstance(one, IfasError)]
    if failed:
        raise failed[0]
    begun = [one for one in said if isinstance(one, _Begun)]
    if dead:
        shard, tries = Counter(one.shard for one in begun).most_common(1)[0] if begun else ("", 0)
        raise MachineError(
            f"an actor that captions died too often; shard {shard} was begun {tries} times: {dead}",
            "give the actors more memory, or look at that shard's images",
        )
    actors, nodes = ({getattr(one, of) for one in begun} for of in ("actor", "node"))
    emit("note", "caption", text=f"shards captioned: {len(shards)} (actors: {len(actors)}, nodes: {len(nodes)})")


def _rows(text: str) -> list[Wanted]:
    plain = json.loads(text)
    return [Wanted(i, s, r, tuple(b) if b else None, clip, draws) for i, s, r, b, clip, draws in plain]


def _cluster(config: CaptionConfig) -> AbstractContextManager[None]:
    """The Ray cluster that this process is a job of, or one of this machine alone."""
    return connected(
        cpus=config.actors,
        object_store=200 * 2**20,
        settings={"RAY_DATA_DISABLE_PROGRESS_BARS": "1"},
        worker_env={"IFAS_HOME": str(home().absolute())},
    )
