import hashlib
import json
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifas.core import storage
from ifas.core.errors import CorruptShardError, DataError
from ifas.core.files import sha256_file
from ifas.data.dataset import read_index, verify
from ifas.data.shards import ShardImages
from ifas.data.tables import ShardWriter
from tests.servers import Endpoint
from tests.unit.data.pictures import folder_dataset


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ifas.data.pack import pack

    root = tmp_path_factory.mktemp("shards")
    pack("folder", folder_dataset(root / "raw"), root / "out", name="tiny", licence="CC0-1.0")
    return root / "out"


@pytest.fixture
def dataset(original: Path, tmp_path: Path) -> Path:
    import shutil

    return shutil.copytree(original, tmp_path / "dataset")


SHARD = "shard-00001.parquet"


def test_another_machine_fetches_a_shard_once_and_keeps_no_damaged_one(
    dataset: Path, s3: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = next(iter(read_index(dataset)["shards"]))
    here, uri = ShardImages(dataset, f"s3://{s3.bucket}/shards/dataset"), f"s3://{s3.bucket}/shards/dataset"
    storage.store(dataset, uri)
    image, sent, alone = here.read(name, 0), pickle.dumps(here), pickle.dumps(ShardImages(dataset))
    dataset.rename(tmp_path / "elsewhere")  # as on another machine
    assert pickle.loads(sent).read(name, 0) == image
    storage.delete(uri)
    assert pickle.loads(sent).read(name, 0) == image, "it is on this machine now"
    with pytest.raises(DataError, match="is not on this machine"):
        pickle.loads(alone).read(name, 0)

    (tmp_path / "elsewhere" / "shards" / name).write_bytes(b"damaged")
    storage.store(tmp_path / "elsewhere", uri)
    monkeypatch.setenv("IFAS_HOME", str(tmp_path / "third"))
    with pytest.raises(CorruptShardError, match=f"shard {name} of {uri} is corrupt"):
        pickle.loads(sent).read(name, 0)
    assert [file.suffix for file in (tmp_path / "third").rglob("*") if file.is_file()] == [".lock"]


def spoil(file: Path) -> tuple[str, str]:
    """Changes one byte; the hashes before and after."""
    before = sha256_file(file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return before, sha256_file(file)


def refused(dataset: Path, said: str) -> None:
    images = ShardImages(dataset)
    assert images.read("shard-00000.parquet", 0)
    for check in (lambda: images.read(SHARD, 0), lambda: verify(dataset)):
        with pytest.raises(CorruptShardError, match=said) as error:
            check()
        assert SHARD in error.value.what
        assert "again" in error.value.fix


def test_a_corrupt_shard_is_named_with_its_first_damaged_row(dataset: Path) -> None:
    file = dataset / "shards" / SHARD
    image = ShardImages(dataset).read(SHARD, 5)
    data = bytearray(file.read_bytes())
    data[data.index(image) + 9] ^= 1
    file.write_bytes(data)
    refused(dataset, "row 5, sample [0-9a-f]{64}, holds other bytes")


@pytest.mark.parametrize("where", ["name", "manifest_sha256", "shards", "ids_sha256", "rows"])
@pytest.mark.parametrize("value", [None, 7.5, ["x"]])
def test_an_index_without_a_name_a_hash_or_a_number_of_rows_is_corrupt(
    dataset: Path, where: str, value: object
) -> None:
    index = read_index(dataset)
    (index["shards"][SHARD] if where in ("ids_sha256", "rows") else index)[where] = value
    (dataset / "dataset.json").write_text(json.dumps(index))
    with pytest.raises(CorruptShardError, match=r"dataset\.json can't be read"):
        ShardImages(dataset).read(SHARD, 0)


def test_a_shard_of_whole_images_that_are_not_those_listed_is_corrupt(dataset: Path) -> None:
    file = dataset / "shards" / SHARD
    table = pq.read_table(file)
    pq.write_table(table[::-1], file)
    expected = read_index(dataset)["shards"][SHARD]["ids_sha256"]
    refused(dataset, f"other images: expected hash of ids {expected}, found [0-9a-f]{{64}}")
    file.unlink()
    refused(dataset, "missing")


@settings(max_examples=60)
@given(at=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_no_damaged_byte_of_a_shard_gives_another_image(
    original: Path, tmp_path_factory: pytest.TempPathFactory, at: float, bits: int
) -> None:
    import shutil

    dataset = shutil.copytree(original, tmp_path_factory.mktemp("bits") / "dataset")
    file = dataset / "shards" / SHARD
    rows = len(pq.read_table(file))
    data = bytearray(file.read_bytes())
    data[int(at * len(data))] ^= bits
    file.write_bytes(data)
    try:
        verify(dataset)
        found = [ShardImages(dataset).read(SHARD, row) for row in range(rows)]
    except CorruptShardError:
        return
    assert found == [ShardImages(original).read(SHARD, row) for row in range(rows)]


def test_datasets_of_the_first_format_are_read(dataset: Path) -> None:
    file = dataset / "dataset.json"
    index = json.loads(file.read_text())
    index["format"] = 1
    for name, shard in index["shards"].items():
        del shard["ids_sha256"]
        shard["sha256"] = sha256_file(dataset / "shards" / name)
    file.write_text(json.dumps(index))
    assert verify(dataset)["format"] == 1
    expected, found = spoil(dataset / "shards" / SHARD)
    refused(dataset, f"expected SHA-256 {expected}, found {found}")


def test_verify_covers_the_manifest_and_missing_files(dataset: Path) -> None:
    assert verify(dataset)["name"] == "tiny"
    expected, found = spoil(dataset / "manifest.parquet")
    with pytest.raises(CorruptShardError, match=f"(?s)manifest.parquet.*{expected}.*{found}"):
        verify(dataset)
    (dataset / "manifest.parquet").unlink()
    with pytest.raises(CorruptShardError, match=r"manifest\.parquet .*missing"):
        verify(dataset)


def test_what_is_not_there_is_said(dataset: Path) -> None:
    images = ShardImages(dataset)
    with pytest.raises(DataError, match=r"no shard 'shard-00007\.parquet'"):
        images.read("shard-00007.parquet", 0)
    for row in (-1, 18):
        with pytest.raises(DataError, match=f"no row {row}, it has 18"):
            images.read(SHARD, row)
    with pytest.raises(DataError, match="not a dataset folder"):
        ShardImages(dataset / "shards").read(SHARD, 0)
    (dataset / "dataset.json").write_text("{")
    with pytest.raises(CorruptShardError, match="can't be read"):
        ShardImages(dataset).read(SHARD, 0)
    (dataset / "dataset.json").write_text('{"format": 3, "shards": {}}')
    with pytest.raises(DataError, match="update ifas"):
        verify(dataset)


def test_it_travels_to_other_processes(dataset: Path) -> None:
    images = ShardImages(dataset)
    first = images.read(SHARD, 3)
    copy = pickle.loads(pickle.dumps(images))
    assert copy == images
    assert len(pickle.dumps(images)) < 1000
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(images.read, [(SHARD, 3)] * 4) == [first] * 4


#: In a process of its own: one that other tests left with threads may hang for ever in what it forks.
FORKED = """
import multiprocessing, sys
from pathlib import Path
from ifas.data.shards import ShardImages

images = ShardImages(Path(sys.argv[1]))
first = images.read(sys.argv[2], 3)
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.starmap(images.read, [(sys.argv[2], 3)] * 4) == [first] * 4
"""


def test_a_forked_process_reads_the_open_shard_for_itself(dataset: Path) -> None:
    subprocess.run([sys.executable, "-c", FORKED, str(dataset), SHARD], check=True, timeout=120)


@settings(max_examples=15)
@given(
    sizes=st.lists(st.integers(1, 400_000), min_size=1, max_size=90),
    shard_bytes=st.sampled_from([1, 600_000, 10**9]),
    seed=st.integers(0, 99),
)
def test_every_row_of_every_shard_comes_back(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], shard_bytes: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    images = [np.random.default_rng([seed, n]).bytes(size) for n, size in enumerate(sizes)]
    with ShardWriter(folder, shard_bytes) as writer:
        places = []
        for image in images:
            places.append(writer.add(hashlib.sha256(image).hexdigest(), image))
            if writer.full:
                writer.cut()
    shards = {s.name: {"ids_sha256": s.ids_sha256, "rows": s.rows, "bytes": s.bytes} for s in writer.files}
    (folder / "dataset.json").write_text(
        json.dumps({"format": 2, "name": "t", "manifest_sha256": "0" * 64, "shards": shards})
    )
    assert sum(s.rows for s in writer.files) == len(images)
    reader = ShardImages(folder)
    order = np.random.default_rng(seed).permutation(len(images))
    assert all(reader.read(*places[n]) == images[n] for n in order)
