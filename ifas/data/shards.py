"""Reads image bytes out of the shards of a dataset folder, here or on a machine that has to fetch them first."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from socket import gethostname
from threading import Lock
from typing import Any

from ifas.core import storage
from ifas.core.errors import CorruptShardError, DataError
from ifas.core.files import locked, remove
from ifas.core.home import home
from ifas.core.manifest import SHARDS_DIR
from ifas.core.progress import emit
from ifas.data.dataset import REFETCH, check_shard, read_index, shard_hash

#: Row groups (about 256 KB each) of a shard that stay in memory, for readers that go through rows in order.
GROUPS_KEPT = 4


@dataclass(frozen=True)
class ShardImages:
    """The images of a dataset folder, an `ifas.core.manifest.ImageSource`.

    A shard is opened, and its images checked, when a process first reads from it. Pickling takes the paths and the
    index along, so another machine checks what it reads against what this one saw.

    Args:
        root: the folder.
        uri: where the same folder is in a store; a machine without `root` fetches the shards that it reads from there,
            each once. Empty: all machines see `root`.
        index: what `dataset.json` says of the shards; None: it is read when needed.
    """

    root: Path
    uri: str = ""
    index: Mapping[str, dict[str, Any]] | None = field(default=None, repr=False, compare=False)
    _open: dict[tuple[int, str], _Shard] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[ShardImages], tuple[Path, str, Mapping[str, dict[str, Any]]]]:
        return (ShardImages, (self.root, self.uri, self._shards()))

    def read(self, shard: str, row: int) -> bytes:
        """Encoded image bytes at a row of a shard.

        Raises:
            CorruptShardError: the shard's bytes are not those that were packed.
            DataError: the dataset has no such shard or row, or its store can't be reached.
        """
        # A forked process must not share an open file with its parent.
        key = (os.getpid(), shard)
        with self._lock:
            opened = self._open.get(key)
            if opened is None:
                opened = self._open[key] = _Shard(*self._file(shard))
        return opened.read(row)

    def _shards(self) -> Mapping[str, dict[str, Any]]:
        shards: Mapping[str, dict[str, Any]] = read_index(self.root)["shards"] if self.index is None else self.index
        return shards

    def _file(self, name: str) -> tuple[Path, str]:
        """A shard's checked file, and what errors call it."""
        listed = self._shards()
        if name not in listed:
            raise DataError(f"{self.root} has no shard {name!r}", f"its shards are: {', '.join(listed)}")
        if not self.uri and not self.root.exists():
            raise DataError(
                f"{self.root} is not on this machine ({gethostname()})",
                "give the dataset by its URI in an object store, or mount the same folder on all machines",
            )
        if not self.uri or self.root.exists():
            file, called = self.root / SHARDS_DIR / name, f"shard {name} of {self.root}"
            check_shard(file, listed[name], called)
            return file, called
        file, called = home().absolute() / "fetched" / SHARDS_DIR / shard_hash(listed[name]), f"{name} of {self.uri}"
        with locked(file.with_name(f"{file.name}.lock")):
            if not file.exists():
                storage.fetch(f"{self.uri.rstrip('/')}/{SHARDS_DIR}/{name}", file)
                emit("note", "fetch", text=f"shard {called}: {file.stat().st_size / 2**20:.1f} MiB")
            try:
                check_shard(file, listed[name], f"shard {called}")
            except CorruptShardError:
                remove(file)  # else the next try would find it here
                raise
        return file, f"shard {called}"


class _Shard:
    """One open shard, with the row groups read last."""

    def __init__(self, file: Path, called: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            self._file: Any = pq.ParquetFile(file)
        except (OSError, pa.ArrowException) as error:
            raise CorruptShardError(f"{file} can't be read as Parquet: {error}", REFETCH) from error
        meta = self._file.metadata
        self._name = called
        self._ends = list(accumulate(meta.row_group(i).num_rows for i in range(meta.num_row_groups)))
        self._groups: OrderedDict[int, Any] = OrderedDict()
        self._lock = Lock()

    def read(self, row: int) -> bytes:
        total = self._ends[-1] if self._ends else 0
        if not 0 <= row < total:
            raise DataError(f"{self._name} has no row {row}, it has {total}", "use the manifest of this dataset")
        group = bisect_right(self._ends, row)
        start = self._ends[group - 1] if group else 0
        with self._lock:
            images = self._images(group)
        image: bytes = images[row - start].as_py()
        return image

    def _images(self, group: int) -> Any:
        found = self._groups.pop(group, None)
        if found is None:
            found = self._file.read_row_group(group, columns=["image"], use_threads=False).column(0)
        self._groups[group] = found
        if len(self._groups) > GROUPS_KEPT:
            self._groups.popitem(last=False)
        return found
