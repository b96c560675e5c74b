"""`ifas data import`: what was found, terms accepted by name, a revision; a stopped import goes on."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ifas.cli.main import app
from ifas.core.errors import DataError, ValidationFailed
from ifas.core.files import read_json
from ifas.data.licences import accept, accepted
from ifas.data.registry import Registry
from tests.unit.data.pictures import picture, put
from tests.unit.data.test_layouts import grown


def hifimask(root: Path) -> Path:
    for n, source in enumerate(
        f"Data/1_{subject:02d}_{kind}_1_0_1/{frame:04d}.png"
        for subject in range(1, 13)
        for kind in (0, 3)
        for frame in (0, 1)
    ):
        put(root / source, picture(7000 + 31 * n, kind="PNG"))
    put(root / "Data/1_01_0_1_0_1/0009.png", b"not an image")
    put(root / "readme.first", b"x")
    return root


def run(*arguments: object) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, ["data", "import", *map(str, arguments)])
    return done.exit_code, done.output, done.exception


def test_dry_run_says_what_is_there_and_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    raw = grown(tmp_path / "casia", "casia-mfsd")
    (raw / "test_release/30/8.avi").write_bytes(b"")
    code, out, _ = run("casia-mfsd", raw, "--dry-run")
    assert code == 0
    for words in (
        "subjects       4",
        "live 3, spoof 6",
        "print.cut_eyes 2",
        "test 5",
        "9 videos",
        "holiday.xyz",
        "not readable   1",
        "30/8.avi",
    ):
        assert words in out, out
    assert [p.name for p in tmp_path.iterdir()] == ["casia"]
    code, out, _ = run("siw", grown(tmp_path / "siw", "siw"), "--dry-run", "--json")
    assert json.loads(out)["species"] == {"live": 1, "print": 1, "replay": 1}


def test_import_registers_a_revision_and_keeps_who_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IFAS_HOME", str(tmp_path / "home"))
    raw = hifimask(tmp_path / "raw")
    registry = tmp_path / "registry"
    code, out, error = run("hifimask", raw, "--registry", registry)
    assert code != 0
    assert isinstance(error, DataError)
    assert "--accept-licence" in error.fix
    assert "CASIA form" in error.what
    code, out, error = run("hifimask", raw, "--registry", registry, "--accept-licence", "Ada Lovelace")
    assert code == 0, (out, error)
    assert "HiFiMask: CASIA form, signed" in out
    assert "hifimask/v1" in out
    assert "accepted by Ada Lovelace" in out
    assert "0009.png" in out
    record = read_json(registry / "licences" / "hifimask.json")
    assert record["accepted_by"] == "Ada Lovelace"
    assert record["accepted_at"][:4].isdigit()
    # Again: nobody is asked again, nothing changes.
    code, out, error = run("hifimask", raw, "--registry", registry, "--json")
    assert code == 0, (out, error)
    facts = json.loads(out)
    assert (facts["changed"], facts["tag"], facts["packed"]["rows"]) == (False, "hifimask/v1", 48)
    assert facts["licence"]["accepted_by"] == "Ada Lovelace"
    assert facts["found"]["unrecognised"]["first"] == ["readme.first"]


def test_a_dataset_that_breaks_a_rule_is_not_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IFAS_HOME", str(tmp_path / "home"))
    raw = tmp_path / "raw"
    rows = []
    for n, split in enumerate(["train", "train", "test", "test", "dev", "dev"]):
        put(raw / f"{n}.jpg", picture(n))
        species = "live" if n % 2 else "replay"
        rows.append({"path": f"{n}.jpg", "domain": "d", "subject_id": "one", "media_id": str(n), "split": split,
                     "pai_species": species})  # fmt: skip
    put(raw / "samples.jsonl", "".join(json.dumps(r) + "\n" for r in rows).encode())
    code, _, error = run("folder", raw, "--name", "mine", "--licence", "ours", "--accept-licence", "Ada",
                         "--registry", tmp_path / "registry")  # fmt: skip
    assert code != 0
    assert isinstance(error, ValidationFailed)
    assert "one" in error.what
    assert not (tmp_path / "registry" / "datasets").exists()


def test_a_mended_dataset_is_imported_by_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IFAS_HOME", str(tmp_path / "home"))
    raw = tmp_path / "raw"
    splits = ["train"] * 4 + ["test"] * 4 + ["dev"] * 4

    def listed(subject_of: dict[str, str]) -> None:
        rows = [
            {"path": f"{n}.jpg", "domain": "d", "subject_id": subject_of[split], "media_id": str(n), "split": split,
             "pai_species": "live" if n % 2 else "replay"}
            for n, split in enumerate(splits)
        ]  # fmt: skip
        put(raw / "samples.jsonl", "".join(json.dumps(r) + "\n" for r in rows).encode())

    for n in range(len(splits)):
        put(raw / f"{n}.jpg", picture(n))
    listed(dict.fromkeys(splits, "one"))
    command = ("folder", raw, "--name", "mine", "--licence", "ours", "--accept-licence", "Ada",
               "--registry", tmp_path / "registry")  # fmt: skip
    assert isinstance(run(*command)[2], ValidationFailed)
    listed({"train": "one", "test": "two", "dev": "three"})
    code, out, error = run(*command)
    assert code == 0, (out, error)
    assert "mine/v1" in out


def test_acceptance_is_for_these_terms_only(tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "registry")
    first = accept(registry, "siw", "terms of 2018", "Ada")
    assert accept(registry, "siw", "terms of 2018", "Grace") == first
    assert accepted(registry, "siw", "terms of 2020") is None
    assert accept(registry, "siw", "terms of 2020", "Grace").accepted_by == "Grace"
    for terms, by, words in (("", "Ada", "--licence"), ("terms", " ", "your name")):
        with pytest.raises(DataError) as error:
            accept(registry, "other", terms, by)
        assert words in str(error.value)
    (tmp_path / "registry" / "licences" / "siw.json").write_text("{")
    with pytest.raises(DataError, match="no record"):
        accepted(registry, "siw", "terms of 2020")
