"""Parts of a dataset without the rest, and what changed between two revisions."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ifas.cli.main import app
from ifas.core.errors import CorruptShardError, DataError, RegistryError
from ifas.core.manifest import read_manifest
from ifas.data.diff import diff
from ifas.data.pack import pack
from ifas.data.registry import Registry
from ifas.data.shards import ShardImages
from tests.unit.data.pictures import folder_dataset, picture, put
from tests.unit.validation.captioned import manifest


def test_a_domain_is_read_without_the_others(tmp_path: Path) -> None:
    raw = folder_dataset(tmp_path / "raw", subjects=8, domains=("desk", "door", "hall"))
    pack("folder", raw, tmp_path / "out", name="tiny", licence="x")
    whole = read_manifest(tmp_path / "out")
    file = tmp_path / "out" / "manifest.parquet"
    meta = pq.ParquetFile(file).metadata
    assert meta.num_row_groups == 3
    # Everything that another domain's row groups and shards hold is destroyed.
    data = bytearray(file.read_bytes())
    for group in (0, 2):
        for column in range(meta.num_columns):
            chunk = meta.row_group(group).column(column)
            if chunk.path_in_schema not in ("domain", "split"):
                at = chunk.dictionary_page_offset or chunk.data_page_offset
                data[at : at + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    file.write_bytes(bytes(data))
    for shard in set(whole.loc[whole["domain"] != "door", "shard"]):
        (tmp_path / "out" / "shards" / shard).unlink()
    door = read_manifest(tmp_path / "out", domains=["door"], splits=["train"])
    expected = whole[(whole["domain"] == "door") & (whole["split"] == "train")].reset_index(drop=True)
    pd.testing.assert_frame_equal(door.astype(str), expected.astype(str), check_dtype=False)
    images = ShardImages(tmp_path / "out")
    for row in door.itertuples():
        assert images.read(row.shard, row.row) == (raw / row.source).read_bytes()
    with pytest.raises((DataError, OSError)):
        read_manifest(tmp_path / "out")
    with pytest.raises(CorruptShardError):
        images.read("shard-00000.parquet", 0)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    root = tmp_path_factory.mktemp("registry")
    raw = folder_dataset(root / "raw", subjects=3, domains=("desk",))
    registry = Registry.init(root / "registry")
    pack("folder", raw, root / "one", name="faces", licence="x")
    registry.publish(root / "one")
    put(raw / "desk/replay.phone/s9/0.jpg", picture(8000))
    (raw / "desk/live/s0").rename(raw / "desk/print.a4/s0b")
    pack("folder", raw, root / "two", name="faces", licence="x")
    registry.publish(root / "two")
    return registry


@pytest.fixture(scope="module")
def manifests(registry: Registry) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Those of the first and the second revision; not to be changed."""
    return registry.manifest("faces", "v1"), registry.manifest("faces", "HEAD")


def test_manifest_and_previous_without_images(registry: Registry, manifests: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    old, new = manifests
    assert (len(old), len(new)) == (18, 19)
    assert registry.previous("faces", "HEAD") == registry.resolve("faces", "v1")
    assert registry.previous("faces", "v1") is None
    url = Registry(f"file://{registry.path}")
    assert url.previous("faces", "HEAD") == registry.resolve("faces", "v1")
    assert len(url.manifest("faces", "v2")) == 19
    with pytest.raises(RegistryError, match="no revision"):
        registry.manifest("faces", "v9")


def test_diff_names_what_changed(manifests: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    found = diff(*manifests)
    assert found["rows"] == {"before": 18, "after": 19, "came": 1, "went": 0, "kept": 18}
    assert found["subjects"]["came"] == {"count": 2, "first": ["s0b", "s9"]}
    assert found["species"] == {"live": [6, 4], "print.a4": [6, 8], "replay.phone": [0, 1]}
    assert found["labels"]["count"] == 2
    assert all(one.endswith("live -> print.a4") for one in found["labels"]["first"])
    assert found["captions"] is None


def test_diff_of_captions_and_splits() -> None:
    old = manifest()
    new = old.drop(index=[0, 1]).copy()
    new.loc[5, "caption"] = "Another caption."
    mover = new.loc[8, "subject_id"]
    new.loc[new["subject_id"] == mover, "split"] = "dev"
    found = diff(old, new)
    assert found["captions"]["went"] == 2
    assert found["captions"]["changed"]["count"] == 1
    assert found["captions"]["changed"]["first"][0].endswith("-> Another caption.")
    assert f"{mover}: {old.loc[8, 'split']} -> dev" in found["subjects"]["changed"]["first"]
    same = diff(old, old)
    assert same["rows"]["kept"] == len(old)
    assert not any(same[k] for k in ("species",))
    assert same["captions"]["changed"]["count"] == same["subjects"]["changed"]["count"] == 0
    assert diff(old.drop(columns=["caption"]), old)["captions"]["came"] == len(old)


def test_diff_on_the_command_line(registry: Registry) -> None:
    done = CliRunner().invoke(app, ["data", "diff", "v1", "v2", "--name", "faces", "--registry", str(registry.path)])
    assert done.exit_code == 0, done.output
    assert "18 -> 19: 1 came, 0 went, 18 kept" in done.output
    assert "came     s9" in done.output
    assert "live: 6 -> 4" in done.output
