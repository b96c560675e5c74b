import json
from pathlib import Path

import pytest

from ifas.core.errors import ConfigError, DataError
from ifas.core.taxonomy import PAI_SPECIES
from ifas.data.readers import READERS, RawSample, reader
from ifas.data.readers.celeba_spoof import LICENCE, SPECIES
from ifas.data.readers.sample import share_of
from tests.unit.data.pictures import picture, put

# What each species of CelebA-Spoof is for us: (number, spoof type, PAI species).
CELEBA_TYPES = [
    (0, "live", "live"),
    (1, "print", "print.photo"),
    (2, "print", "print.poster"),
    (3, "print", "print.a4"),
    (4, "mask", "mask.paper_face"),
    (5, "mask", "mask.paper_upper_body"),
    (6, "mask", "mask.paper_region"),
    (7, "replay", "replay.pc"),
    (8, "replay", "replay.tablet"),
    (9, "replay", "replay.phone"),
    (10, "mask", "mask.rigid3d"),
]
TRAIN_SUBJECT = next(str(n) for n in range(1, 999) if share_of(str(n)) >= 0.15)
DEV_SUBJECT = next(str(n) for n in range(1, 999) if share_of(str(n)) < 0.15)


def entry(spoof: int, illumination: int, environment: int, label: int) -> list[int]:
    return [1, 0] * 20 + [spoof, illumination, environment, label]


def celeba(root: Path) -> dict[str, dict[str, list[int]]]:
    """A miniature of the distributed tree: every type once, in the exact naming."""
    tables: dict[str, dict[str, list[int]]] = {"train": {}, "test": {}}
    for number, _, _ in CELEBA_TYPES:
        for split, subject in (("train", TRAIN_SUBJECT), ("test", "6964")):
            kind, ending = ("live", "jpg") if number == 0 else ("spoof", "png")
            key = f"Data/{split}/{subject}/{kind}/{494400 + number}.{ending}"
            tables[split][key] = entry(number, *((0, 0, 0) if number == 0 else (1 + number % 4, 1 + number % 2, 1)))
            put(root / key, picture(number + (100 if split == "test" else 0), kind="JPEG" if number == 0 else "PNG"))
            put(root / f"{key.rpartition('.')[0]}_BB.txt", f"{number} 20 100 120 0.9987\n".encode())
    key = f"Data/train/{DEV_SUBJECT}/live/000001.jpg"
    tables["train"][key] = entry(0, 0, 0, 0)
    put(root / key, picture(777))
    write(root, tables)
    return tables


def write(root: Path, tables: dict[str, dict[str, list[int]]]) -> None:
    for split, table in tables.items():
        put(root / f"metas/intra_test/{split}_label.json", json.dumps(table).encode())


def by_source(samples: tuple[RawSample, ...]) -> dict[str, RawSample]:
    return {s.source: s for s in samples}


def test_celeba_spoof_every_row(tmp_path: Path) -> None:
    tables = celeba(tmp_path)
    scan = READERS["celeba-spoof"].scan(tmp_path)
    rows = by_source(scan.samples)
    assert set(rows) == set(tables["train"]) | set(tables["test"])
    assert not scan.refused
    assert not scan.unrecognised
    assert scan.licence == LICENCE
    for number, spoof_type, species in CELEBA_TYPES:
        for split, subject in (("train", TRAIN_SUBJECT), ("test", "6964")):
            kind, ending = ("live", "jpg") if number == 0 else ("spoof", "png")
            row = rows[f"Data/{split}/{subject}/{kind}/{494400 + number}.{ending}"]
            assert (row.spoof_type, row.pai_species) == (spoof_type, species)
            assert row.label == kind
            assert row.split == split
            assert row.subject_id == subject
            assert row.media_id == f"{subject}/{kind}/{494400 + number}"
            assert row.domain == "celeba-spoof"
            assert row.licence == LICENCE
            assert not row.synthetic
            assert Path(row.path) == tmp_path / row.source
            assert row.face_box == (number, 20, 100, 120)
            assert row.box_frame == (224, 224)
            light = {0: "normal", 1: "strong", 2: "back", 3: "dark"}
            assert row.illumination == (None if number == 0 else light[number % 4])
            assert row.environment == (None if number == 0 else ["indoor", "outdoor"][number % 2])
    dev = rows[f"Data/train/{DEV_SUBJECT}/live/000001.jpg"]
    assert dev.split == "dev"
    assert dev.face_box is None


def test_celeba_spoof_species_are_in_the_taxonomy() -> None:
    assert set(SPECIES) == set(range(11))
    assert set(SPECIES.values()) <= set(PAI_SPECIES)


def test_celeba_spoof_dev_share_is_about_15_percent_of_subjects() -> None:
    assert 0.13 < sum(share_of(str(n)) < 0.15 for n in range(8192)) / 8192 < 0.17


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (entry(0, 0, 0, 0), "lies in folder spoof/ but label [43] is 0 (live)"),
        (entry(0, 1, 1, 1), "label [43] is 1 (spoof) but spoof type [40] is 0"),
        (entry(11, 1, 1, 1), "spoof type [40] is 11"),
        (entry(3, 5, 1, 1), "illumination [41] is 5"),
        (entry(3, 1, 3, 1), "environment [42] is 3"),
    ],
)
def test_celeba_spoof_contradictions_are_listed_with_their_path(tmp_path: Path, row: list[int], reason: str) -> None:
    tables = celeba(tmp_path)
    key = next(k for k in tables["test"] if "/spoof/" in k)
    tables["test"][key] = row
    write(tmp_path, tables)
    scan = READERS["celeba-spoof"].scan(tmp_path)
    assert [r.source for r in scan.refused] == [key]
    assert reason in scan.refused[0].reason
    assert key not in by_source(scan.samples)


def test_celeba_spoof_says_what_is_missing_and_what_is_not_listed(tmp_path: Path) -> None:
    tables = celeba(tmp_path)
    gone = next(iter(tables["train"]))
    (tmp_path / gone).unlink()
    put(tmp_path / "Data/test/6964/live/notes.txt", b"hello")
    scan = READERS["celeba-spoof"].scan(tmp_path)
    assert any(gone in note for note in scan.notes)
    assert scan.unrecognised == ("Data/test/6964/live/notes.txt",)


@pytest.mark.parametrize("key", ["train/1/live/1.jpg", "Data/train/1/fake/1.jpg", "Data/train/../live/1.jpg"])
def test_celeba_spoof_wrong_layout_names_the_first_path(tmp_path: Path, key: str) -> None:
    celeba(tmp_path)
    put(tmp_path / "metas/intra_test/train_label.json", json.dumps({key: entry(0, 0, 0, 0)}).encode())
    with pytest.raises(DataError, match=r"expected Data/<train\|test>") as error:
        READERS["celeba-spoof"].scan(tmp_path)
    assert key in str(error.value)


@pytest.mark.parametrize("row", [[1] * 43, [1] * 43 + ["1"], "x"])
def test_celeba_spoof_rows_are_44_integers(tmp_path: Path, row: object) -> None:
    celeba(tmp_path)
    key = "Data/train/1/live/1.jpg"
    put(tmp_path / "metas/intra_test/train_label.json", json.dumps({key: row}).encode())
    with pytest.raises(DataError, match=f"{key}.*44 integers"):
        READERS["celeba-spoof"].scan(tmp_path)


def test_celeba_spoof_on_another_layout(tmp_path: Path) -> None:
    put(tmp_path / "a/live/s/1.jpg", picture(1))
    with pytest.raises(DataError, match=r"train_label\.json is not there"):
        READERS["celeba-spoof"].scan(tmp_path)


def test_folder_rows_follow_from_the_path(tmp_path: Path) -> None:
    for species in ("live", "replay", "mask.rigid3d"):
        put(tmp_path / f"lobby/{species}/anna/shot.1.png", picture(1, kind="PNG"))
    put(tmp_path / "dataset.json", b'{"name": "mine", "licence": "CC0-1.0", "synthetic": true}')
    put(tmp_path / "lobby/live/anna/notes.txt", b"x")
    put(tmp_path / "stray.jpg", picture(1))
    scan = READERS["folder"].scan(tmp_path)
    assert (scan.name, scan.licence, scan.synthetic) == ("mine", "CC0-1.0", True)
    assert scan.unrecognised == ("lobby/live/anna/notes.txt", "stray.jpg")
    rows = by_source(scan.samples)
    assert {(s.spoof_type, s.label) for s in rows.values()} == {
        ("live", "live"),
        ("replay", "spoof"),
        ("mask", "spoof"),
    }
    row = rows["lobby/mask.rigid3d/anna/shot.1.png"]
    assert (row.domain, row.subject_id, row.pai_species) == ("lobby", "anna", "mask.rigid3d")
    assert row.media_id == "lobby/mask.rigid3d/anna/shot.1"
    assert row.synthetic
    assert len({s.media_id for s in rows.values()}) == 3


def test_folder_split_is_by_subject_and_stays_put(tmp_path: Path) -> None:
    for n in range(60):
        for domain in ("a", "b"):
            put(tmp_path / f"{domain}/live/p{n}/1.jpg", b"not read by the reader")
    before = {(s.subject_id, s.split) for s in READERS["folder"].scan(tmp_path).samples}
    assert len(before) == 60
    splits = [split for _, split in before]
    assert splits.count("train") > splits.count("test") > splits.count("dev") > 0
    put(tmp_path / "c/live/newcomer/1.jpg", b"")
    after = {(s.subject_id, s.split) for s in READERS["folder"].scan(tmp_path).samples}
    assert before < after


def test_folder_unknown_type_names_path_and_taxonomy(tmp_path: Path) -> None:
    put(tmp_path / "lobby/deepfake/anna/1.jpg", picture(1))
    with pytest.raises(DataError, match=r"lobby/deepfake/anna/1\.jpg") as error:
        READERS["folder"].scan(tmp_path)
    assert "print.a4" in error.value.fix


def test_folder_without_images_names_the_first_path(tmp_path: Path) -> None:
    put(tmp_path / "images/1.jpg", picture(1))
    with pytest.raises(DataError, match=r"first path that did not fit: images/1\.jpg"):
        READERS["folder"].scan(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        READERS["folder"].scan(tmp_path / "nowhere")


LINE = {
    "path": "x/1.png",
    "domain": "x",
    "subject_id": "s1",
    "media_id": "m1",
    "split": "dev",
    "label": "spoof",
    "spoof_type": "replay",
    "pai_species": "replay.phone",
    "device": "cam",
    "environment": "indoor",
    "illumination": "dark",
    "face_box": [1, 2, 30, 40],
    "width": 64,
    "height": 48,
    "licence": "CC-BY-4.0",
    "source": "rendered",
    "synthetic": True,
    "attack": {"pitch": 0.1},
}


def listed(root: Path, *lines: object) -> Path:
    put(root / "x/1.png", picture(1, kind="PNG"))
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    put(root / "samples.jsonl", text.encode())
    return root


def test_folder_samples_jsonl_decides(tmp_path: Path) -> None:
    put(tmp_path / "x/2.png", picture(2, kind="PNG"))
    scan = READERS["folder"].scan(listed(tmp_path, LINE))
    (row,) = scan.samples
    assert row == RawSample(
        path=str(tmp_path / "x/1.png"),
        source="x/1.png",
        domain="x",
        subject_id="s1",
        media_id="m1",
        split="dev",
        pai_species="replay.phone",
        device="cam",
        environment="indoor",
        illumination="dark",
        face_box=(1, 2, 30, 40),
        licence="CC-BY-4.0",
        synthetic=True,
        attack={"pitch": 0.1},
    )
    assert scan.unrecognised == ("x/2.png",)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": "live"}, "label is 'live' but PAI species is 'replay.phone'"),
        ({"spoof_type": "print"}, "spoof_type is 'print'"),
        ({"path": "x/gone.png"}, "not there"),
    ],
)
def test_folder_samples_jsonl_contradictions_are_listed(tmp_path: Path, change: dict[str, str], reason: str) -> None:
    scan = READERS["folder"].scan(listed(tmp_path, {**LINE, **change}))
    assert not scan.samples
    assert scan.refused[0].source == change.get("path", "x/1.png")
    assert reason in scan.refused[0].reason


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[]", "line 2 holds a list"),
        ({k: v for k, v in LINE.items() if k != "subject_id"}, "line 2: missing or not text: subject_id"),
        ({**LINE, "path": "../1.png"}, "leaves the dataset"),
        ({**LINE, "path": "/etc/passwd"}, "leaves the dataset"),
        ({**LINE, "split": "val"}, "split 'val'"),
        ({**LINE, "face_box": [1, 2, 3]}, "face_box"),
        ({**LINE, "pai_species": "deepfake"}, "not in the taxonomy"),
        (LINE, "listed twice"),
    ],
)
def test_folder_samples_jsonl_names_the_bad_line(tmp_path: Path, line: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        READERS["folder"].scan(listed(tmp_path, LINE, line))


def test_unknown_layout_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="celeba-spoof, folder"):
        reader("imagenet")
