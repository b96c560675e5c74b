"""The datasets of the One-to-Eleven protocol in their official naming: every row's subject, species and split."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ifas.core.errors import DataError
from ifas.core.taxonomy import PAI_SPECIES, spoof_type_of
from ifas.data.readers import READERS, Scan, reader
from ifas.data.readers.sample import share_of, split_of, train_or_dev
from ifas.data.readers.wmca import species_of
from tests.unit.data.pictures import put

#: (subject, species, split or how it follows from the subject)
Row = tuple[str, str, object]

TREES: dict[str, dict[str, Row]] = {
    "casia-mfsd": {
        # Subject 1 of train and subject 1 of test are two people.
        "train_release/1/1.avi": ("train-1", "live", train_or_dev),
        "train_release/1/HR_1.avi": ("train-1", "live", train_or_dev),
        "train_release/1/3.avi": ("train-1", "print.warped", train_or_dev),
        "train_release/20/HR_3.avi": ("train-20", "print.cut_eyes", train_or_dev),
        "test_release/1/2.avi": ("test-1", "live", "test"),
        "test_release/1/6.avi": ("test-1", "print.cut_eyes", "test"),
        "test_release/30/8.avi": ("test-30", "replay.tablet", "test"),
        "test_release/30/HR_4.avi": ("test-30", "replay.tablet", "test"),
        "test_release/30/HR_2.avi": ("test-30", "print.warped", "test"),
    },
    "replay-attack": {
        "train/real/client001_session01_webcam_authenticate_controlled_1.mov": ("client001", "live", "train"),
        "devel/real/client003_session01_webcam_authenticate_adverse_2.mov": ("client003", "live", "dev"),
        "test/attack/fixed/attack_highdef_client009_session01_highdef_photo_adverse.mov": (
            "client009",
            "replay.tablet",
            "test",
        ),
        "test/attack/hand/attack_mobile_client009_session01_mobile_video_controlled.mov": (
            "client009",
            "replay.phone",
            "test",
        ),
        "train/attack/hand/attack_print_client001_session01_highdef_photo_controlled.mov": (
            "client001",
            "print",
            "train",
        ),
    },
    "msu-mfsd": {
        "scene01/real/real_client002_android_SD_scene01.mp4": ("client002", "live", train_or_dev),
        "scene01/real/real_client001_laptop_SD_scene01.mov": ("client001", "live", "test"),
        "scene01/attack/attack_client002_laptop_SD_ipad_video_scene01.mov": (
            "client002",
            "replay.tablet",
            train_or_dev,
        ),
        "scene01/attack/attack_client001_android_SD_iphone_video_scene01.mp4": ("client001", "replay.phone", "test"),
        "scene01/attack/attack_client001_android_SD_printed_photo_scene01.mp4": ("client001", "print.photo", "test"),
    },
    "oulu-npu": {
        "Train_files/1_1_01_1.avi": ("user01", "live", "train"),
        "Train_files/6_3_20_2.avi": ("user20", "print", "train"),
        "Dev_files/2_2_21_3.avi": ("user21", "print", "dev"),
        "Test_files/4_1_36_4.avi": ("user36", "replay", "test"),
        "Test_files/4_1_55_5.avi": ("user55", "replay", "test"),
    },
    "casia-surf-3dmask": {
        "Real/0927_013/1.MOV": ("0927_013", "live", split_of),
        "Real/0927_013/23.MOV": ("0927_013", "live", split_of),
        "Fake/0927_013/1/6.MOV": ("0927_013", "mask.rigid3d", split_of),
        "Fake/1005_002/3/1.MOV": ("1005_002", "mask.rigid3d", split_of),
    },
    "hkbu-mars": {
        "real/01/01_01_01.avi": ("01", "live", split_of),
        "attack/12/07_06_12.avi": ("12", "mask.rigid3d", split_of),
        # The leading zero of the subject is missing in a few names.
        "attack/09/02_04_9.avi": ("09", "mask.rigid3d", split_of),
    },
    "hifimask": {
        "Data/1_01_0_1_0_1/0000.png": ("01", "live", split_of),
        "Data/1_01_0_1_0_1/0009.png": ("01", "live", split_of),
        "Data/2_17_1_5_6_7/0003.png": ("17", "mask.transparent", split_of),
        "Data/3_75_2_6_4_8/0003.png": ("75", "mask.plaster", split_of),
        "Data/1_40_3_2_2_2/0003.png": ("40", "mask.resin", split_of),
    },
    "rose-youtu": {
        "train/2/G_T_5s_g_E_2_1.mp4": ("2", "live", train_or_dev),
        "train/3/Ps_NT_HS_wg_E_3_5.mp4": ("3", "print.still", train_or_dev),
        "test/10/Pq_T_ZTE_g_E_10_5.mp4": ("10", "print.quivering", "test"),
        "test/10/Vl_NT_HW_g_E_10_5.mp4": ("10", "replay.laptop", "test"),
        "test/10/Vm_NT_IP_g_E_10_5.mp4": ("10", "replay.laptop", "test"),
        "test/10/Mc_NT_IP_g_E_10_5.mp4": ("10", "mask.paper_cropped", "test"),
        "test/10/Mf_NT_IP_g_E_10_5.mp4": ("10", "mask.paper_full", "test"),
        "test/10/Mu_NT_IP_g_E_10_5.mp4": ("10", "mask.paper_upper", "test"),
    },
    "siw": {
        "Train/live/003/003-1-1-1-1.mov": ("003", "live", train_or_dev),
        "Train/spoof/003/003-2-2-4-2.mov": ("003", "print", train_or_dev),
        "Test/spoof/165/165-1-3-1-1.mov": ("165", "replay", "test"),
    },
    "siw-m-v2": {
        "Live/Live_1.mov": ("live-1", "live", split_of),
        "Spoof/Makeup_Cosmetic/Makeup_Co_3.mov": ("mask.makeup_cosmetic-3", "mask.makeup_cosmetic", split_of),
        "Spoof/Makeup_Impersonation/Makeup_Im_3.mov": (
            "mask.makeup_impersonation-3",
            "mask.makeup_impersonation",
            split_of,
        ),
        "Spoof/Makeup_Obfuscation/Makeup_Ob_3.mov": ("mask.makeup_obfuscation-3", "mask.makeup_obfuscation", split_of),
        "Spoof/Mannequin/Mask_Mann_9.mov": ("mannequin-9", "mannequin", split_of),
        "Spoof/Silicone/Mask_Silicone_9.mov": ("mask.silicone-9", "mask.silicone", split_of),
        "Spoof/Print/Paper_12.mov": ("print-12", "print", split_of),
        "Spoof/Print/Print_13.mov": ("print-13", "print", split_of),
        "Spoof/Replay/Replay_4.mp4": ("replay-4", "replay", split_of),
        "Spoof/Partial_FunnyeyeGlasses/Partial_Funnyeye_1.mov": (
            "mask.partial_funny_glasses-1",
            "mask.partial_funny_glasses",
            split_of,
        ),
        "Spoof/Partial_PaperGlasses/Partial_Paperglass_1.mov": (
            "mask.partial_paper_glasses-1",
            "mask.partial_paper_glasses",
            split_of,
        ),
        "Spoof/Partial_Eye/Partial_Eye_1.mov": ("mask.partial_eye-1", "mask.partial_eye", split_of),
        "Spoof/Partial_Mouth/Partial_Mouth_1.mov": ("mask.partial_mouth-1", "mask.partial_mouth", split_of),
        "Spoof/Mask_HalfMask/Mask_Half_1.mov": ("mask.half-1", "mask.half", split_of),
        "Spoof/Mask_PaperMask/Mask_Paper_1.mov": ("mask.paper-1", "mask.paper", split_of),
        "Spoof/Mask_TransparentMask/Mask_Trans_1.mov": ("mask.transparent-1", "mask.transparent", split_of),
    },
    "wmca": {
        # Photos on paper and on a screen share type 3; glasses and rigid masks share type 1.
        "RGB/27.10.17/001_01_000_0_00.hdf5": ("001", "live", "train"),
        "RGB/27.10.17/002_01_000_3_05.hdf5": ("002", "replay", "train"),
        "RGB/27.10.17/002_01_000_3_04.hdf5": ("002", "print", "train"),
        "RGB/27.10.17/003_01_000_1_02.hdf5": ("003", "mask.rigid3d", "dev"),
        "RGB/27.10.17/003_01_000_1_04.hdf5": ("003", "mask.glasses", "dev"),
        "RGB/28.10.17/004_02_000_2_01.hdf5": ("004", "mannequin.fake_head", "test"),
        "RGB/28.10.17/004_02_000_2_09.hdf5": ("004", "mask.paper", "test"),
        "RGB/28.10.17/004_02_000_2_12.hdf5": ("004", "mask.rigid3d", "test"),
        "RGB/28.10.17/004_02_000_2_18.hdf5": ("004", "mask.flexible", "test"),
        "RGB/28.10.17/004_02_000_2_85.hdf5": ("004", "mask.flexible", "test"),
        "RGB/28.10.17/004_02_000_4_01.hdf5": ("004", "replay", "test"),
    },
    "nuaa": {
        "ClientRaw/0001/0001_00_00_01_0.jpg": ("0001", "live", split_of),
        "ClientRaw/0001/0001_00_00_01_1.jpg": ("0001", "live", split_of),
        "ImposterRaw/0011/0011_01_00_02_34.jpg": ("0011", "print.photo", split_of),
    },
}
#: Files that come with the dataset, hold no sample, and are nobody's fault.
SIDE: dict[str, dict[str, str]] = {
    "msu-mfsd": {"train_sub_list.txt": "02\n03\n", "test_sub_list.txt": "01\n13\n"},
    "oulu-npu": {"Train_files/1_1_01_1.txt": "0,1,2,3,4", "Protocols/Protocol_1/Train.txt": "+1,1_1_01_1"},
    "siw": {"Train/live/003/003-1-1-1-1.face": "0 0 9 9"},
    "replay-attack": {"enroll/train/client001_session01_webcam_enroll_controlled_1.mov": "x"},
    "wmca": {
        "PROTOCOL-grandtest.csv": "client_id,filepath,group,label\n"
        + "".join(
            f"{Path(p).name[:3]},RGB/{'/'.join(p.split('/')[-2:]).removesuffix('.hdf5')},"
            f"{ {'train': 'train', 'dev': 'dev', 'test': 'eval'}[str(split)] },"
            f"{'bonafide' if species == 'live' else 'attack'}\n"
            for p, (_, species, split) in TREES["wmca"].items()
        )
    },
    "nuaa": {
        "client_train_raw.txt": "0001\\0001_00_00_01_0.jpg\n",
        "client_test_raw.txt": "0001\\0001_00_00_01_1.jpg\n",
    },
}


def grown(root: Path, layout: str) -> Path:
    """The miniature tree of a layout, with a file of the user's own in it."""
    for source in TREES[layout]:
        put(root / source, b"not decoded by a scan")
    for source, text in SIDE.get(layout, {}).items():
        put(root / source, text.encode())
    put(root / ".DS_Store", b"x")
    put(root / "holiday.xyz", b"x")
    return root


def rows_of(scan: Scan) -> dict[str, tuple[str, str, str]]:
    return {s.source: (s.subject_id, s.pai_species, s.split) for s in scan.samples}


@pytest.mark.parametrize("layout", TREES)
def test_every_row(layout: str, tmp_path: Path) -> None:
    scan = reader(layout).scan(grown(tmp_path, layout))
    expected = {
        source: (subject, species, split(subject) if callable(split) else split)
        for source, (subject, species, split) in TREES[layout].items()
    }
    assert rows_of(scan) == expected
    assert not scan.refused
    assert scan.unrecognised == ("holiday.xyz",)
    assert scan.licence
    for sample in scan.samples:
        assert sample.label == ("live" if sample.pai_species == "live" else "spoof")
        ending = Path(sample.path).suffix
        assert sample.container == {".png": "image", ".jpg": "image", ".hdf5": "hdf5"}.get(ending, "video")
        assert Path(sample.path).is_file()
    media = {s.media_id for s in scan.samples}
    assert len(media) == len(
        {s.source.rpartition("/")[0] if layout in ("hifimask", "nuaa") else s.source for s in scan.samples}
    )


@pytest.mark.parametrize("layout", TREES)
def test_wrong_layout_names_the_first_path_and_what_was_expected(layout: str, tmp_path: Path) -> None:
    for source, text in SIDE.get(layout, {}).items():
        if source.endswith("_list.txt"):
            put(tmp_path / source, text.encode())
    put(tmp_path / "a" / "b.mov", b"x")
    put(tmp_path / "z" / "c.mov", b"x")
    with pytest.raises(DataError) as error:
        reader(layout).scan(tmp_path)
    assert "a/b.mov" in str(error.value)
    assert "expected" in str(error.value)
    with pytest.raises(DataError, match=r"not a folder|not there"):
        reader(layout).scan(tmp_path / "nowhere")


def test_every_layout_is_tested_and_every_species_is_known() -> None:
    assert set(READERS) == {*TREES, "celeba-spoof", "folder"}
    for rows in TREES.values():
        assert all(species in PAI_SPECIES for _, species, _ in rows.values())
    for species, kind in PAI_SPECIES.items():
        assert species.split(".")[0] == kind
    with pytest.raises(DataError, match="add a line to PAI_SPECIES"):
        spoof_type_of("hologram")


def test_lists_of_the_other_polarity(tmp_path: Path) -> None:
    root = grown(tmp_path, "hkbu-mars")
    live, attack, attack_2 = sorted(TREES["hkbu-mars"], key=lambda s: not s.startswith("real"))
    lines = {live: 0, attack: 1, attack_2: 1}

    def listed(rows: dict[str, int]) -> Scan:
        (root / "list.txt").write_text("".join(f"{s.removesuffix('.avi')} {v}\n" for s, v in rows.items()))
        return reader("hkbu-mars").scan(root)

    straight = listed(lines)
    assert straight.notes == ()
    turned = listed({s: 1 - v for s, v in lines.items()})
    assert "1 for bona fide" in turned.notes[0]
    assert rows_of(turned) == rows_of(straight)
    # One row against the others is that row's fault, whichever way round the list is.
    for odd in (lines | {attack: 0}, {s: 1 - v for s, v in lines.items()} | {attack: 1}):
        scan = listed(odd)
        assert [r.source for r in scan.refused] == [attack]
        assert "says bona fide, the path says an attack" in scan.refused[0].reason
        assert attack not in rows_of(scan)


def test_hifimask_protocol_lists_give_the_splits(tmp_path: Path) -> None:
    root = grown(tmp_path, "hifimask")
    (root / "protocol1").mkdir()
    (root / "protocol1" / "train_label.txt").write_text("Data/1_01_0_1_0_1 1\nData/2_17_1_5_6_7 0\n")
    (root / "protocol1" / "dev.txt").write_text("3_75_2_6_4_8\n")
    scan = reader("hifimask").scan(root)
    assert {s.subject_id: s.split for s in scan.samples} == {"01": "train", "17": "train", "75": "dev"}
    assert [r.source for r in scan.refused] == ["Data/1_40_3_2_2_2/0003.png"]
    assert any("1 for bona fide" in note for note in scan.notes)


def test_names_that_contradict_their_folder_are_refused(tmp_path: Path) -> None:
    for layout, source in {
        "siw": "Train/live/003/003-1-2-1-1.mov",
        "hkbu-mars": "real/01/01_01_02.avi",
        "siw-m-v2": "Spoof/Print/Replay_1.mov",
        "wmca": "RGB/27.10.17/001_01_000_2_50.hdf5",
    }.items():
        root = grown(tmp_path / layout, layout)
        put(root / source, b"x")
        scan = reader(layout).scan(root)
        assert [r.source for r in scan.refused] == [source], layout
        assert source not in rows_of(scan)


def test_msu_subjects_need_a_list(tmp_path: Path) -> None:
    root = grown(tmp_path, "msu-mfsd")
    stranger = "scene01/real/real_client077_laptop_SD_scene01.mov"
    put(root / stranger, b"x")
    assert [r.source for r in reader("msu-mfsd").scan(root).refused] == [stranger]
    (root / "test_sub_list.txt").write_text("02\n")
    with pytest.raises(DataError, match="both lists"):
        reader("msu-mfsd").scan(root)
    (root / "test_sub_list.txt").unlink()
    with pytest.raises(DataError, match=r"test_sub_list\.txt is not there"):
        reader("msu-mfsd").scan(root)


def test_wmca_species_follow_from_type_and_pai() -> None:
    """Counts of rules, from the public leave-one-out lists: PAI numbers mean other things under other types."""
    assert species_of(0, 0) == "live"
    for pai in (1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14):
        assert species_of(3, pai) == "print"
    for pai in (5, 10, 15):
        assert species_of(3, pai) == "replay"
    assert {species_of(4, pai) for pai in range(20)} == {"replay"}
    assert [species_of(1, pai) for pai in (1, 2, 4, 7, 13, 14, 15, 16)] == [
        "mask.glasses", "mask.rigid3d", "mask.glasses", "mask.glasses",
        "mask.rigid3d", "mask.rigid3d", "mask.glasses", "mask.glasses",
    ]  # fmt: skip
    assert species_of(2, 50) is None
    assert species_of(1, 3) is None


def test_wmca_list_decides_split_and_is_checked(tmp_path: Path) -> None:
    root = grown(tmp_path, "wmca")
    csv = root / "PROTOCOL-grandtest.csv"
    head, first, *lines, last = csv.read_text().splitlines(keepends=True)
    csv.write_text("".join([head, first.replace("bonafide", "attack"), *lines]))
    scan = reader("wmca").scan(root)
    reasons = {r.source: r.reason for r in scan.refused}
    assert "says an attack" in reasons["RGB/27.10.17/001_01_000_0_00.hdf5"]
    assert "does not list it" in reasons["RGB/28.10.17/004_02_000_4_01.hdf5"]
    csv.write_text("".join([head, first, *lines, last]).replace("train", "training"))
    with pytest.raises(DataError, match="line 2"):
        reader("wmca").scan(root)
    csv.unlink()
    scan = reader("wmca").scan(root)
    assert "no grandtest CSV" in scan.notes[0]
    assert all(s.split == split_of(s.subject_id) for s in scan.samples)


def test_nuaa_says_that_its_lists_share_subjects(tmp_path: Path) -> None:
    assert "1 subjects are in NUAA's own train and test" in reader("nuaa").scan(grown(tmp_path, "nuaa")).notes[0]


def test_splits_by_subject_have_the_shares_that_are_promised() -> None:
    many = [split_of(f"subject {i}") for i in range(4000)]
    assert abs(many.count("train") / 4000 - 0.60) < 0.03
    assert abs(many.count("dev") / 4000 - 0.15) < 0.03
    assert all(train_or_dev(str(i)) == ("dev" if share_of(str(i)) < 0.15 else "train") for i in range(100))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout=st.sampled_from(sorted(READERS)), data=st.data())
def test_any_names_and_lists_give_rows_or_a_documented_error(
    layout: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("fuzz")
    known = list(TREES.get(layout, {"Data/train/1/live/1.png": None}))
    part = st.text(st.characters(codec="ascii", exclude_characters="/\0"), min_size=1, max_size=12).filter(
        lambda t: t.strip(". ")
    )
    names = data.draw(
        st.lists(st.one_of(st.sampled_from(known), st.lists(part, min_size=1, max_size=4).map("/".join)), max_size=5)
    )
    lists = ["train_sub_list.txt", "test_sub_list.txt", "x_grandtest.csv", "samples.jsonl", "train.txt",
             "metas/intra_test/train_label.json", "dataset.json"]  # fmt: skip
    for name in names:
        target = root / name
        if not any(p.is_file() for p in target.parents) and not target.exists():
            put(target, b"x")
    for name in data.draw(st.lists(st.sampled_from(lists), max_size=3, unique=True)):
        body = data.draw(
            st.one_of(
                st.binary(max_size=60), st.sampled_from([b"1\n2\n", b"{}", json.dumps({known[0]: [0] * 44}).encode()])
            )
        )
        if not (root / name).exists() and not any(p.is_file() for p in (root / name).parents):
            put(root / name, body)
    with suppress(DataError):
        scan = reader(layout).scan(root)
        assert len({s.source for s in scan.samples}) == len(scan.samples)
