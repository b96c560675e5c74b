"""The captioned manifest as Parquet: the columns' declared types, and the same bytes for the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ifas.core.errors import DataError
from ifas.core.manifest import CAPTION_COLUMNS, COLUMNS

if TYPE_CHECKING:
    import pandas as pd


def write_table(rows: pd.DataFrame, path: Path) -> None:
    """Writes rows as Parquet. Columns of the manifest come first, in its order; further ones follow in theirs.

    Raises:
        DataError: a column does not hold its declared type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        "string": pa.string(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "bool": pa.bool_(),
        "list<float>": pa.list_(pa.float32()),
    }
    declared = {column.name: types[column.type] for column in COLUMNS + CAPTION_COLUMNS}
    further = [name for name in rows.columns if name not in declared]
    arrays = {}
    for name in (*declared, *further):
        try:
            arrays[name] = pa.array(rows[name], type=declared.get(name), from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            kind = declared.get(name, "one type")
            raise DataError(
                f"column {name} of the manifest does not hold {kind}: {error}", "mend the reader"
            ) from error
    pq.write_table(pa.table(arrays), path, compression="zstd", version="2.6", write_statistics=True)
