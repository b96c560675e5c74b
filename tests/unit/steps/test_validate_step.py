"""What the validate step does with a captioned manifest that is damaged."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ifas.core.config import load
from ifas.core.errors import DataError
from ifas.core.records import UNREADABLE_FILE, Lineage
from ifas.data.pack import pack
from ifas.steps import validate
from ifas.steps.contract import Context
from tests.unit.data.pictures import folder_dataset


def test_captions_whose_text_is_damaged_are_refused(tmp_path: Path) -> None:
    pack("folder", folder_dataset(tmp_path / "raw", subjects=1), tmp_path / "dataset", name="t", licence="x")
    table = pq.read_table(tmp_path / "dataset" / "manifest.parquet")
    captions = pa.array([b"a face \x80"] * len(table), pa.binary()).view(pa.string())  # no valid UTF-8
    (tmp_path / "captions").mkdir()
    pq.write_table(table.append_column("caption", captions), tmp_path / "captions" / "manifest.parquet")
    inputs = {name: tmp_path / name for name in ("dataset", "captions")}
    out = tmp_path / "validation"
    places = {name: tmp_path / name for name in ("work", "lineage_out", "failed")}
    context = Context(run_id="r", lineage=Lineage(run_id="r"), **places)
    with pytest.raises(DataError, match=r"captions/manifest\.parquet can't be read as Parquet"):
        validate.run(load("tiny"), inputs, {"validation": out}, context)
    assert len(pq.read_table(out / UNREADABLE_FILE)) == 0
