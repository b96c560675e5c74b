"""Opens the dataset of a candidate for the review page, which knows nothing of shards."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ifas.review.judged import Dataset


def open_dataset(place: str) -> Dataset:
    """The dataset at a path or URI. Of one in a store, only its table comes here; its shards do when they are read.

    Raises:
        DataError: there is none, it can't be read, or its store can't be reached.
    """
    from ifas.core import storage
    from ifas.core.files import sha256_file
    from ifas.core.manifest import DATASET_FILE, MANIFEST_FILE, read_manifest
    from ifas.data.dataset import read_index
    from ifas.data.shards import ShardImages
    from ifas.review.judged import Dataset

    uri = storage.unpinned(place)[0]
    if not storage.is_remote(uri):
        folder = storage.fetch(uri, Path())
        return Dataset(read_manifest(folder), sha256_file(folder / MANIFEST_FILE), ShardImages(folder))
    with tempfile.TemporaryDirectory(prefix="ifas-review-") as scratch:
        folder = Path(scratch)
        for name in (MANIFEST_FILE, DATASET_FILE):
            storage.fetch(f"{uri.rstrip('/')}/{name}", folder / name)
        images = ShardImages(Path("/nowhere"), uri, read_index(folder)["shards"])
        return Dataset(read_manifest(folder), sha256_file(folder / MANIFEST_FILE), images)
