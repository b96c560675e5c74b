"""Perceptual hashes of a dataset's pictures, looked at when they are needed and kept by the hash of their shard."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.files import replacing
from ifas.core.home import home
from ifas.core.manifest import ImageSource
from ifas.core.picture_inspection import inspect_pictures
from ifas.data.dataset import shard_hash

if TYPE_CHECKING:
    import pandas as pd

#: Below the ifas home. The number goes up when hashes are made in another way.
KEPT = Path("phash") / "3"


def hashes(rows: pd.DataFrame, images: ImageSource, index: dict[str, Any], workers: int = 2) -> pd.Series:
    """The perceptual hash of each row's picture, null where it can't be decoded.

    A shard is looked at once on a machine: what is found is kept under its hash, so that a batch costs no second look
    at the pictures that were there before.

    Args:
        index: `dataset.json`.

    Raises:
        CorruptShardError: the shard's bytes are not those that were packed.
    """
    import pandas as pd

    found = pd.Series(None, index=rows.index, dtype=object)
    for name, mine in rows.groupby("shard", sort=False):
        shard = index["shards"][str(name)]
        all_rows = _of_shard(str(name), shard, images, workers)
        found.loc[mine.index] = [all_rows[row] for row in mine["row"]]
    return found


def _of_shard(name: str, shard: dict[str, Any], images: ImageSource, workers: int) -> list[str | None]:
    kept = home() / KEPT / f"{shard_hash(shard)}.json"
    try:
        read: list[str | None] = json.loads(kept.read_text(encoding="utf-8"))
        if len(read) == shard["rows"]:
            return read
    except (OSError, ValueError, TypeError):
        pass
    reads = (partial(images.read, name, row) for row in range(shard["rows"]))
    made = [one.phash for one in inspect_pictures(reads, workers=workers)]
    with replacing(kept) as beside:
        beside.write_text(json.dumps(made), encoding="utf-8")
    return made
