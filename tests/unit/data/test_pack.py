import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ifas.core.errors import ConfigError, DataError, MachineError
from ifas.core.files import sha256_tree
from ifas.core.imaging import ImageLimits
from ifas.core.manifest import COLUMNS, read_manifest
from ifas.data.dataset import verify
from ifas.data.pack import pack
from ifas.data.shards import ShardImages
from tests.unit.data.pictures import bomb, folder_dataset, picture, put
from tests.unit.data.test_readers import celeba, entry, write

LICENCE = "CC0-1.0"


def index_of(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


def test_manifest_has_exactly_the_columns(tmp_path: Path) -> None:
    report = pack("folder", folder_dataset(tmp_path / "raw"), tmp_path / "out", name="tiny", licence=LICENCE)
    schema = pq.read_schema(tmp_path / "out/manifest.parquet")
    assert schema.names == [c.name for c in COLUMNS]
    for column, found in zip(COLUMNS, schema, strict=True):
        wanted = "list<element: float>" if column.type == "list<float>" else column.type
        assert str(found.type) == wanted, column.name
        assert found.nullable == column.nullable, column.name
    assert pq.read_table(tmp_path / "out/manifest.parquet").num_rows == report.rows == 36
    assert report.subjects == 3
    assert "36 images of 3 subjects" in report.summary


def test_index_counts_and_hashes(tmp_path: Path) -> None:
    report = pack("folder", folder_dataset(tmp_path / "raw"), tmp_path / "out", name="tiny", licence=LICENCE)
    index = verify(tmp_path / "out")
    assert (index["format"], index["name"], index["rows"], index["subjects"]) == (2, "tiny", 36, 3)
    assert index["licences"] == {LICENCE: 36}
    assert set(index["counts"]) == {"desk", "door"}
    assert sum(n for splits in index["counts"].values() for types in splits.values() for n in types.values()) == 36
    assert list(index["shards"]) == ["shard-00000.parquet", "shard-00001.parquet"]
    assert sum(s["rows"] for s in index["shards"].values()) == 36
    for name, shard in index["shards"].items():
        assert (tmp_path / "out/shards" / name).stat().st_size == shard["bytes"]
    assert report.bytes == sum(s["bytes"] for s in index["shards"].values())
    assert json.loads(json.dumps(report.facts))["rows"] == 36


def test_images_come_back_as_they_were(tmp_path: Path) -> None:
    raw = folder_dataset(tmp_path / "raw")
    pack("folder", raw, tmp_path / "out", name="tiny", licence=LICENCE, shard_bytes=5000)
    manifest = read_manifest(tmp_path / "out")
    assert manifest["shard"].nunique() > 4
    images = ShardImages(tmp_path / "out")
    for row in manifest.itertuples():
        assert images.read(row.shard, row.row) == (raw / row.source).read_bytes()


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    raw = folder_dataset(tmp_path / "raw")
    put(raw / "desk/live/s0/cut.jpg", picture(5)[:300])
    put(raw / "desk/live/s0/text.jpg", b"this is not an image, whatever its name says")
    hashes = set()
    for number, workers in enumerate((1, 2, 2)):
        out = tmp_path / f"out{number}"
        report = pack("folder", raw, out, name="tiny", licence=LICENCE, workers=workers, shard_bytes=9000)
        hashes.add((report.dataset_sha256, sha256_tree(out)))
    assert len(hashes) == 1
    moved = (tmp_path / "raw").rename(tmp_path / "elsewhere")
    pack("folder", moved, tmp_path / "out9", name="tiny", licence=LICENCE, shard_bytes=9000)
    assert sha256_tree(tmp_path / "out9") == sha256_tree(tmp_path / "out0")


def test_a_new_domain_leaves_the_other_shards_as_they_are(tmp_path: Path) -> None:
    raw = folder_dataset(tmp_path / "raw")
    pack("folder", raw, tmp_path / "one", name="tiny", licence=LICENCE)
    put(raw / "arch/live/s0/1.jpg", picture(4321))
    pack("folder", raw, tmp_path / "two", name="tiny", licence=LICENCE)
    before = {s["ids_sha256"] for s in index_of(tmp_path / "one")["shards"].values()}
    after = {s["ids_sha256"] for s in index_of(tmp_path / "two")["shards"].values()}
    assert before < after


def test_bad_images_are_counted_and_listed(tmp_path: Path) -> None:
    raw = folder_dataset(tmp_path / "raw")
    put(raw / "desk/live/s0/truncated.jpg", picture(1, 200, 200)[:-900])
    put(raw / "desk/live/s0/bomb.png", bomb())
    put(raw / "desk/live/s0/empty.jpg", b"")
    put(raw / "desk/live/s0/speck.png", picture(3, 8, 8, "PNG"))
    put(raw / "desk/live/s0/gif.jpg", picture(4, kind="GIF"))
    put(raw / "desk/live/s0/huge.jpg", bytes(9 * 2**20))
    (raw / "desk/live/s0/dangling.jpg").symlink_to(raw / "nowhere.jpg")
    report = pack("folder", raw, tmp_path / "out", name="tiny", licence=LICENCE)
    assert report.rows == 36
    reasons = {Path(refusal.source).stem: refusal.reason for refusal in report.refused}
    assert set(reasons) == {"truncated", "bomb", "empty", "speck", "gif", "huge", "dangling"}
    assert "14000x14000 pixels" in reasons["bomb"]
    assert "truncated" in reasons["truncated"]
    assert "8x8" in reasons["speck"]
    assert "bytes" in reasons["huge"]
    listed = index_of(tmp_path / "out")["refused"]
    assert [tuple(r.values()) for r in listed] == list(report.refused)
    assert {r["domain"] for r in listed} == {"desk"}
    assert {r["pai_species"] for r in listed} == {"live"}


def test_limits_are_the_callers(tmp_path: Path) -> None:
    raw = folder_dataset(tmp_path / "raw")
    put(raw / "desk/live/s0/large.png", picture(3, 100, 100, "PNG"))
    report = pack("folder", raw, tmp_path / "out", name="t", licence=LICENCE, limits=ImageLimits(max_pixels=64 * 48))
    assert [r.source for r in report.refused] == ["desk/live/s0/large.png"]


def test_identical_bytes_are_kept_once(tmp_path: Path) -> None:
    raw = folder_dataset(tmp_path / "raw")
    copy = (raw / "desk/live/s0/0.jpg").read_bytes()
    put(raw / "door/live/s1/copy.jpg", copy)
    report = pack("folder", raw, tmp_path / "out", name="tiny", licence=LICENCE)
    assert report.rows == 36
    assert report.duplicates == (("door/live/s1/copy.jpg", "desk/live/s0/0.jpg"),)
    assert index_of(tmp_path / "out")["duplicates"][0]["same_as"] == "desk/live/s0/0.jpg"
    assert read_manifest(tmp_path / "out")["sample_id"].is_unique


def test_identical_bytes_with_contradicting_labels_are_refused(tmp_path: Path) -> None:
    raw = folder_dataset(tmp_path / "raw")
    put(raw / "door/replay/s1/copy.jpg", (raw / "desk/live/s0/0.jpg").read_bytes())
    report = pack("folder", raw, tmp_path / "out", name="tiny", licence=LICENCE)
    assert report.rows == 35
    assert [r.source for r in report.refused] == ["desk/live/s0/0.jpg", "door/replay/s1/copy.jpg"]
    assert all("live, replay" in r.reason for r in report.refused)


def test_all_images_refused(tmp_path: Path) -> None:
    put(tmp_path / "raw/desk/live/s0/1.jpg", b"not an image")
    with pytest.raises(DataError, match=r"all 1 images were refused.*desk/live/s0/1.jpg"):
        pack("folder", tmp_path / "raw", tmp_path / "out", name="tiny", licence=LICENCE)
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]


def test_a_licence_is_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--licence"):
        pack("folder", folder_dataset(tmp_path / "raw"), tmp_path / "out", name="tiny")
    assert not (tmp_path / "out").exists()


def test_the_datasets_own_licence_stays(tmp_path: Path) -> None:
    raw = folder_dataset(tmp_path / "raw")
    put(raw / "dataset.json", b'{"licence": "CC-BY-4.0"}')
    pack("folder", raw, tmp_path / "out", name="tiny", licence="MIT")
    assert set(read_manifest(tmp_path / "out")["licence"]) == {"CC-BY-4.0"}


def test_out_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    raw = folder_dataset(tmp_path / "raw")
    precious = put(tmp_path / "home/thesis.tex", b"years of work")
    with pytest.raises(DataError, match="not a dataset folder"):
        pack("folder", raw, tmp_path / "home", name="tiny", licence=LICENCE)
    assert precious.read_bytes() == b"years of work"
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with pytest.raises(DataError, match=r"symbolic link to .*disk"):
        pack("folder", raw, tmp_path / "link", name="tiny", licence=LICENCE)
    assert (tmp_path / "link").is_symlink()
    for out in (raw, raw / "packed", tmp_path):
        with pytest.raises(DataError, match="inside each other"):
            pack("folder", raw, out, name="tiny", licence=LICENCE)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dataset.json", b'{"licence": "CC-BY-4.0"}'),
        ("dataset.json", b"[]"),
        ("shards/mine.parquet", b"PAR1"),
        ("manifest.parquet", b"labels corrected by hand"),
    ],
)
def test_out_that_a_user_made_or_changed_is_left_alone(tmp_path: Path, name: str, content: bytes) -> None:
    raw = folder_dataset(tmp_path / "raw")
    out = tmp_path / "out"
    if name != "dataset.json":
        pack("folder", raw, out, name="tiny", licence=LICENCE, workers=1)
    precious = put(out / name, content)
    with pytest.raises(DataError, match=f"not a dataset folder|{name}"):
        pack("folder", raw, out, name="tiny", licence=LICENCE, workers=1)
    assert precious.read_bytes() == content


def test_packing_leaves_alone_what_another_packing_writes_beside_it(tmp_path: Path) -> None:
    other = put(tmp_path / ".out.v2.0a1b2c3d.part/out.v2/dataset.json", b"half way")
    pack("folder", folder_dataset(tmp_path / "raw"), tmp_path / "out", name="tiny", licence=LICENCE, workers=1)
    assert other.read_bytes() == b"half way"


def test_failing_leaves_the_old_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = folder_dataset(tmp_path / "raw")
    pack("folder", raw, tmp_path / "out", name="tiny", licence=LICENCE)
    before = sha256_tree(tmp_path / "out")
    put(raw / "door/live/s9/new.jpg", picture(9999))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ifas.data.pack.packing.write_manifest", full)
    with pytest.raises(MachineError, match="no disk space"):
        pack("folder", raw, tmp_path / "out", name="tiny", licence=LICENCE)
    assert sha256_tree(tmp_path / "out") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.packing", "out", "raw"]
    monkeypatch.undo()
    assert pack("folder", raw, tmp_path / "out", name="tiny", licence=LICENCE).resumed == 37
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "raw"]


def test_names_and_layouts_are_checked(tmp_path: Path) -> None:
    raw = folder_dataset(tmp_path / "raw")
    for name in ("../x", "", "a b", "-x", "a..b", "x.lock"):
        with pytest.raises(DataError, match="not usable"):
            pack("folder", raw, tmp_path / "out", name=name, licence=LICENCE)
    with pytest.raises(ConfigError, match="celeba-spoof, folder"):
        pack("tfds", raw, tmp_path / "out", name="x", licence=LICENCE)


def test_celeba_spoof_boxes_are_scaled_to_the_image_and_clipped(tmp_path: Path) -> None:
    tables = celeba(tmp_path / "raw")
    key = "Data/test/6964/spoof/600001.png"
    tables["test"][key] = entry(9, 1, 1, 1)
    put(tmp_path / "raw" / key, picture(31, 448, 112, "PNG"))
    put(tmp_path / "raw/Data/test/6964/spoof/600001_BB.txt", b"-10 112 200 200 0.99\n")
    outside = "Data/test/6964/spoof/600002.png"
    tables["test"][outside] = entry(9, 1, 1, 1)
    put(tmp_path / "raw" / outside, picture(32, kind="PNG"))
    put(tmp_path / "raw/Data/test/6964/spoof/600002_BB.txt", b"300 300 20 20 0.99\n")
    write(tmp_path / "raw", tables)
    pack("celeba-spoof", tmp_path / "raw", tmp_path / "out", name="celeba-spoof")
    rows = read_manifest(tmp_path / "out").set_index("source")
    # 448x112 against 224x224: x and w double, y and h halve; then cut at the left and at the bottom edge.
    assert list(rows.loc[key, "face_box"]) == [0, 56, 380, 56]
    assert rows.loc[outside, "face_box"] is None
    first = rows.loc["Data/test/6964/spoof/494401.png"]
    assert list(first["face_box"]) == pytest.approx([1 * 64 / 224, 20 * 48 / 224, 100 * 64 / 224, 120 * 48 / 224])
    assert set(rows["domain"]) == {"celeba-spoof"}
    assert set(rows["split"]) == {"train", "dev", "test"}


def test_a_pipe_named_like_an_image_or_a_video_is_refused(tmp_path: Path) -> None:
    """Opening one would wait until somebody writes into it."""
    raw = folder_dataset(tmp_path / "raw", subjects=1, domains=("desk",))
    os.mkfifo(raw / "desk/live/s0/pipe.jpg")
    report = pack("folder", raw, tmp_path / "out", name="tiny", licence="x", workers=1)
    assert [(r.source, r.reason) for r in report.refused] == [("desk/live/s0/pipe.jpg", "is not a regular file")]
    clip = tmp_path / "replay/train/real/client001_session01_webcam_authenticate_controlled_1.mov"
    clip.parent.mkdir(parents=True)
    os.mkfifo(clip)
    with pytest.raises(DataError, match="not a regular file"):
        pack("replay-attack", tmp_path / "replay", tmp_path / "none", name="replay", workers=1)
