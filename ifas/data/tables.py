"""How a dataset lies on disk: Arrow schema of the manifest, and Parquet shards of encoded images.

Everything that decides the bytes of a file is set here, so that the same images give the same files and DVC stores
what has not changed only once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ifas.core.manifest import COLUMNS, SHARDS_DIR

if TYPE_CHECKING:
    import pyarrow as pa

#: A row group is what reading one row costs, so it stays small.
GROUP_BYTES = 2**18
GROUP_ROWS = 64


@dataclass(frozen=True)
class ShardFile:
    """One finished shard. `bytes` is the size of the file, `ids_sha256` the hash of its sample ids, joined.

    An id is the hash of its image, so this vouches for every image without hashing the file once more.
    """

    name: str
    ids_sha256: str
    rows: int
    bytes: int


class ShardWriter:
    """Writes images to `shards/shard-00000.parquet`, ...: columns sample_id and image, the bytes as they were.

    A shard ends at `cut`, which is due once it is `full`. Numbers begin at `first`.
    """

    def __init__(self, folder: Path, shard_bytes: int, first: int = 0) -> None:
        self.files: list[ShardFile] = []
        self._first = first
        self._folder = folder / SHARDS_DIR
        self._folder.mkdir(parents=True, exist_ok=True)
        self._shard_bytes = shard_bytes
        self._writer: Any = None
        self._name = ""
        self._rows = self._bytes = 0
        self._digest = hashlib.sha256()
        self._ids: list[str] = []
        self._ends = [0]
        self._memory = memoryview(bytearray(2 * GROUP_BYTES))

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.cut()
        elif self._writer is not None:
            self._writer.close()

    def add(self, sample_id: str, image: bytes | memoryview) -> tuple[str, int]:
        """Adds an image, which is copied, and says where it is: name of the shard, and row."""
        if self._writer is None:
            self._open()
        place = (self._name, self._rows)
        start, end = self._ends[-1], self._ends[-1] + len(image)
        if end > len(self._memory):
            self._memory = memoryview(bytearray(self._memory[:start]) + bytes(end - start))
        self._memory[start:end] = image
        self._digest.update(sample_id.encode())
        self._ids.append(sample_id)
        self._ends.append(end)
        self._rows += 1
        self._bytes += len(image)
        if end >= GROUP_BYTES or len(self._ids) >= GROUP_ROWS:
            self._flush()
        return place

    @property
    def full(self) -> bool:
        """Whether the open shard holds `shard_bytes` of images: time to `cut`."""
        return self._writer is not None and self._bytes >= self._shard_bytes

    def cut(self) -> None:
        """Ends the shard that is open, if one is."""
        if self._writer is None:
            return
        self._flush()
        self._writer.close()
        self._writer = None
        size = (self._folder / self._name).stat().st_size
        self.files.append(ShardFile(self._name, self._digest.hexdigest(), self._rows, size))

    def _open(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._name = shard_name(self._first + len(self.files))
        self._rows = self._bytes = 0
        self._digest = hashlib.sha256()
        schema = pa.schema([pa.field("sample_id", pa.string(), False), pa.field("image", pa.binary(), False)])
        # Encoded images do not compress, and statistics of their bytes are of no use.
        self._writer = pq.ParquetWriter(
            self._folder / self._name,
            schema,
            version="2.6",
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            store_schema=False,
        )

    def _flush(self) -> None:
        if not self._ids:
            return
        import numpy as np
        import pyarrow as pa

        # No second copy of the images: Arrow reads them where `add` has put them.
        buffers = [None, pa.py_buffer(np.array(self._ends, dtype=np.int32)), pa.py_buffer(self._memory)]
        images = pa.Array.from_buffers(pa.binary(), len(self._ids), buffers)
        arrays = [pa.array(self._ids, pa.string()), images]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._writer.schema))
        self._ids, self._ends = [], [0]


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}.parquet"


def contents_sha256(shard: Path) -> str:
    """The `ids_sha256` of a shard, after a look at every image in it.

    Raises:
        ValueError: the file is not a shard, or an image has not the bytes that its id says; names the row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    digest, row = hashlib.sha256(), 0
    try:
        with pq.ParquetFile(shard) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=["sample_id", "image"], use_threads=False)
                for sample_id, image in zip(rows["sample_id"].to_pylist(), rows["image"], strict=True):
                    if hashlib.sha256(image.as_buffer()).hexdigest() != sample_id:
                        raise ValueError(f"row {row}, sample {sample_id}, holds other bytes")
                    digest.update(sample_id.encode())
                    row += 1
    except (OSError, pa.ArrowException, KeyError, MemoryError) as error:
        raise ValueError(f"it can't be read as Parquet: {str(error).splitlines()[0]}") from error
    return digest.hexdigest()


def manifest_schema() -> pa.Schema:
    """Arrow schema of `core.manifest.COLUMNS`."""
    import pyarrow as pa

    def arrow(name: str) -> pa.DataType:
        return pa.list_(pa.float32()) if name == "list<float>" else pa.type_for_alias(name)

    return pa.schema([pa.field(c.name, arrow(c.type), c.nullable) for c in COLUMNS])


def manifest_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows (column name -> value) as Arrow. Raises pyarrow.ArrowInvalid on a value of another type."""
    import pyarrow as pa

    schema = manifest_schema()
    return pa.Table.from_arrays([pa.array([row[f.name] for row in rows], f.type) for f in schema], schema=schema)


def write_manifest(path: Path, tables: Iterable[pa.Table]) -> None:
    """Writes the manifest, a row group or more for each table; only one table is in memory at a time.

    Tables follow the shards, and a shard holds one domain: a reader that wants one domain reads its row groups only.
    """
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, manifest_schema(), version="2.6", compression="zstd") as writer:
        for table in tables:
            if len(table):
                writer.write_table(table)
