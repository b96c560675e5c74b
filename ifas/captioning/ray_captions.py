"""Captioning on a cluster: Ray Data streams shards through a pool of actors, each with the captioner in its memory.

An actor writes the captions of a shard into a folder that all nodes can reach, and returns only the shard's name. So
captions cross the network once, and a restarted run captions only the missing shards.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ifas.captioning.captioners import general_captioner
from ifas.captioning.parts import Part, Wanted, caption_shard, load, part_file, save
from ifas.compute.connection import connected
from ifas.core.config import CaptionConfig
from ifas.core.errors import DataError
from ifas.core.manifest import ImageSource
from ifas.faces.finder import Finder


class _Captioning:
    """What each actor of the pool runs."""

    def __init__(self, images: ImageSource, config: CaptionConfig, folder: str, finder: Finder | None) -> None:
        self.images, self.config, self.folder, self.finder = images, config, Path(folder), finder
        self.general = general_captioner(config)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch is one shard: `rows` holds its rows as a list of plain values."""
        errors = []
        for text in batch["rows"]:
            rows = _rows(str(text))
            try:
                part = caption_shard(rows, self.images, self.general, self.config, self.finder)
                save(part, part_file(self.folder, rows, self.config, self.finder))
                errors.append("")
            except DataError as error:
                errors.append(f"{error.what}\n{error.fix}")
        return {"shard": batch["shard"], "error": errors}


def ray_parts(
    shards: Sequence[Sequence[Wanted]],
    images: ImageSource,
    config: CaptionConfig,
    folder: Path,
    finder: Finder | None = None,
) -> Iterator[Part]:
    """The part of each shard, in order. Shards whose part is in `folder` are not captioned again.

    Args:
        folder: on storage that every node can reach.

    Raises:
        DataError: an actor could not read a shard, or its captions did not arrive.
    """
    import json

    folder = folder.absolute()
    missing = [rows for rows in shards if load(part_file(folder, rows, config, finder), len(rows)) is None]
    if missing:
        with _cluster(config):
            import ray.data

            logging.getLogger("ray.data").setLevel(logging.ERROR)
            items = [{"shard": rows[0].shard, "rows": json.dumps(rows)} for rows in missing]
            done = (
                ray.data.from_items(items, override_num_blocks=len(items))
                .map_batches(
                    _Captioning,
                    fn_constructor_kwargs={"images": images, "config": config, "folder": str(folder), "finder": finder},
                    batch_size=1,
                    compute=ray.data.ActorPoolStrategy(size=config.actors),
                    num_gpus=config.gpus_per_actor or None,
                    num_cpus=None if config.gpus_per_actor else 1,
                )
                .iter_rows()
            )
            for row in done:
                if row["error"]:
                    what, _, fix = str(row["error"]).partition("\n")
                    raise DataError(what, fix)
    for rows in shards:
        part = load(part_file(folder, rows, config, finder), len(rows))
        if part is None:
            raise DataError(f"captions of shard {rows[0].shard} did not arrive in {folder}", "use a shared folder")
        yield part


def _rows(text: str) -> list[Wanted]:
    import json

    plain = json.loads(text)
    return [Wanted(i, s, r, tuple(b) if b else None, clip, draws) for i, s, r, b, clip, draws in plain]


def _cluster(config: CaptionConfig) -> AbstractContextManager[None]:
    """The Ray cluster that this process is a job of, or one of this machine alone."""
    return connected(
        local=not os.environ.get("RAY_ADDRESS"),
        # The reading tasks of Ray Data need a CPU beside those of the actors.
        cpus=config.actors + 1,
        object_store=200 * 2**20,
        settings={"RAY_DATA_DISABLE_PROGRESS_BARS": "1"},
    )
