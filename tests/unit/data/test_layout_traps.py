"""Names and lists that readers once handled wrongly: each gives rows, a refusal or an error that says what is wrong."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from ifas.core.errors import DataError
from ifas.data.readers import reader
from ifas.data.readers.tree import checked_against
from tests.unit.data.pictures import put
from tests.unit.data.test_layouts import TREES, grown, rows_of


def test_wmca_words_that_contradict_every_path_are_an_error_that_says_so(tmp_path: Path) -> None:
    root = grown(tmp_path, "wmca")
    csv = root / "PROTOCOL-grandtest.csv"
    csv.write_text(csv.read_text().replace("bonafide", "@").replace("attack", "bonafide").replace("@", "attack"))
    with pytest.raises(DataError, match=r"all 11 files of wmca are refused.*grandtest CSV says"):
        reader("wmca").scan(root)


@pytest.mark.parametrize(("live", "attack", "turned"), [("0", "1", False), ("1", "0", True)])
def test_wmca_coded_labels_are_compared_whichever_way_round(
    live: str, attack: str, turned: bool, tmp_path: Path
) -> None:
    root = grown(tmp_path, "wmca")
    csv = root / "PROTOCOL-grandtest.csv"
    csv.write_text(csv.read_text().replace("bonafide", live).replace("attack", attack))
    scan = reader("wmca").scan(root)
    assert set(rows_of(scan)) == set(TREES["wmca"])
    assert any("1 for bona fide" in note for note in scan.notes) == turned
    odd = csv.read_text().replace(f"4_01,eval,{attack}", f"4_01,eval,{live}")
    csv.write_text(odd)
    assert [r.source for r in reader("wmca").scan(root).refused] == ["RGB/28.10.17/004_02_000_4_01.hdf5"]


def test_wmca_says_which_labels_it_does_not_understand(tmp_path: Path) -> None:
    root = grown(tmp_path, "wmca")
    csv = root / "PROTOCOL-grandtest.csv"
    csv.write_text(csv.read_text().replace("bonafide", "yes"))
    assert "1 labels are not understood" in reader("wmca").scan(root).notes[0]


@pytest.mark.parametrize("row", ["/ 1\n", ". 0\n", "./ 1\n"])
def test_list_rows_without_a_name(row: str, tmp_path: Path) -> None:
    root = grown(tmp_path, "hkbu-mars")
    (root / "list.txt").write_text(row)
    assert set(rows_of(reader("hkbu-mars").scan(root))) == set(TREES["hkbu-mars"])


def test_lists_with_folders_before_the_paths_are_compared(tmp_path: Path) -> None:
    root = grown(tmp_path, "hkbu-mars")
    (root / "list.txt").write_text(
        "".join(f"/data/HKBU_V2/{s} {int(s.startswith('real'))}\n" for s in TREES["hkbu-mars"])
    )
    assert "1 for bona fide" in reader("hkbu-mars").scan(root).notes[0]


def test_msu_numbers_are_ascii(tmp_path: Path) -> None:
    root = grown(tmp_path, "msu-mfsd")
    (root / "test_sub_list.txt").write_text("01\n²\n")
    with pytest.raises(DataError, match="no subject number"):
        reader("msu-mfsd").scan(root)


@pytest.mark.parametrize(
    ("layout", "source"),
    [
        ("oulu-npu", "Te\u017ft_files/4_1_36_4.avi"),
        ("msu-mfsd", "scene01/attack/attack_client001_android_SD_\u0131pad_video_scene01.mp4"),
    ],
)
def test_letters_that_only_fold_to_the_official_ones_are_not_recognised(
    layout: str, source: str, tmp_path: Path
) -> None:
    root = grown(tmp_path, layout)
    put(root / source, b"x")
    assert source in reader(layout).scan(root).unrecognised


@pytest.mark.parametrize(("layout", "folder"), [("casia-surf-3dmask", b"Real/\xff_1"), ("folder", b"d/live/\xff")])
def test_names_that_are_not_utf8_are_refused(layout: str, folder: bytes, tmp_path: Path) -> None:
    put(tmp_path / "Real/a/1.MOV", b"x") if layout != "folder" else put(tmp_path / "d/live/a/1.jpg", b"x")
    bad = os.fsencode(tmp_path) + b"/" + folder
    try:
        os.makedirs(bad)
    except OSError:
        pytest.skip("this file system only takes UTF-8")
    for name in (b"1.MOV", b"1.jpg"):
        Path(os.fsdecode(bad + b"/" + name)).write_bytes(b"x")
    scan = reader(layout).scan(tmp_path)
    assert len(scan.samples) == 1
    assert len(scan.refused) == 2
    assert all("not UTF-8" in r.reason and r.source.isascii() for r in scan.refused)
    json.dumps([scan.refused, scan.unrecognised], ensure_ascii=False).encode()


def test_hidden_files_are_nobodys_fault(tmp_path: Path) -> None:
    celeba, plain = tmp_path / "celeba", tmp_path / "plain"
    put(celeba / "Data/train/1/live/1.png", b"x")
    put(celeba / "metas/intra_test/train_label.json", json.dumps({"Data/train/1/live/1.png": [0] * 44}).encode())
    put(plain / "d/live/a/1.jpg", b"x")
    for hidden in (celeba / "Data/train/.DS_Store", celeba / "Data/.git/x", plain / "d/.DS_Store", plain / ".git/x"):
        put(hidden, b"x")
    assert reader("celeba-spoof").scan(celeba).unrecognised == ()
    assert reader("folder").scan(plain).unrecognised == ()


def test_siwm_videos_of_one_type_and_number_stay_two_media(tmp_path: Path) -> None:
    root = grown(tmp_path, "siw-m-v2")
    put(root / "Spoof/Print/Print_12.mov", b"x")
    scan = reader("siw-m-v2").scan(root)
    assert len({s.media_id for s in scan.samples}) == len(scan.samples)


def test_hifimask_eval_list_is_test(tmp_path: Path) -> None:
    root = grown(tmp_path, "hifimask")
    (root / "eval.txt").write_text("".join(f"{s.split('/')[1]}\n" for s in TREES["hifimask"]))
    assert {s.split for s in reader("hifimask").scan(root).samples} == {"test"}


def test_comparing_a_list_of_hifimasks_size_takes_no_minutes() -> None:
    found = {f"v{i}": i % 4 == 0 for i in range(54_600)}
    listed: dict[str, bool | None] = {source: not live for source, live in found.items()}
    listed["v1"] = False
    start = time.process_time()
    refused, _ = checked_against(listed, found, "list")
    assert list(refused) == ["v1"]
    assert time.process_time() - start < 5
