"""Reads image bytes out of the shards of a dataset folder."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

from ifas.core.errors import CorruptShardError, DataError
from ifas.core.manifest import SHARDS_DIR
from ifas.data.dataset import REFETCH, check_shard, read_index

#: Row groups (about 256 KB each) of a shard that stay in memory, for readers that go through rows in order.
GROUPS_KEPT = 4


@dataclass(frozen=True)
class ShardImages:
    """The images of a dataset folder, an `ifas.core.manifest.ImageSource`.

    A shard is opened, and its images checked, when a process first reads from it. Pickling takes only the path along.
    """

    root: Path
    _open: dict[tuple[int, str], _Shard] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[ShardImages], tuple[Path]]:
        return (ShardImages, (self.root,))

    def read(self, shard: str, row: int) -> bytes:
        """Encoded image bytes at a row of a shard.

        Raises:
            CorruptShardError: the shard's bytes are not those that were packed.
            DataError: the dataset has no such shard or row.
        """
        # A forked process must not share an open file with its parent.
        key = (os.getpid(), shard)
        with self._lock:
            opened = self._open.get(key)
            if opened is None:
                opened = self._open[key] = _Shard(self.root, shard)
        return opened.read(row)


class _Shard:
    """One open shard, with the row groups read last."""

    def __init__(self, root: Path, name: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        listed = read_index(root)["shards"]
        if name not in listed:
            raise DataError(f"{root} has no shard {name!r}", f"its shards are: {', '.join(listed)}")
        file = root / SHARDS_DIR / name
        check_shard(file, listed[name], f"shard {name} of {root}")
        try:
            self._file: Any = pq.ParquetFile(file)
        except (OSError, pa.ArrowException) as error:
            raise CorruptShardError(f"{file} can't be read as Parquet: {error}", REFETCH) from error
        meta = self._file.metadata
        self._name = f"shard {name} of {root}"
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
