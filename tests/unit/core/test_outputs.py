"""Outputs at a path that the user named: if ifas did not make what is there, it is refused and stays."""

import os
from pathlib import Path

import pytest

from ifas.core import files
from ifas.core.errors import DataError, IfasError
from ifas.core.outputs import discard, producing, require_ours


def make(target: Path, text: str = "made") -> Path:
    with producing(target) as beside:
        beside.mkdir()
        (beside / "sub").mkdir()
        (beside / "sub" / "file").write_text(text)
    return target


def state(root: Path) -> list[tuple[str, str]]:
    """Everything below `root`: name, and text, link target or nothing."""
    return sorted(
        (str(p.relative_to(root)), os.readlink(p) if p.is_symlink() else p.read_text() if p.is_file() else "")
        for p in root.rglob("*")
    )


def put_file(folder: Path) -> None:
    (folder / "sub" / "thesis.tex").write_text("years of work")


def put_folder(folder: Path) -> None:
    (folder / "thesis").mkdir()


def put_link(folder: Path) -> None:
    (folder / "thesis").symlink_to("/etc")


def edit_ours(folder: Path) -> None:
    (folder / "sub" / "file").write_text("edited")


@pytest.mark.parametrize(
    ("change", "named"),
    [(put_file, "sub/thesis.tex"), (put_folder, "thesis"), (put_link, "thesis"), (edit_ours, "sub/file")],
)
def test_what_a_user_put_or_changed_is_refused_by_name(tmp_path, change, named):
    out = make(tmp_path / "out")
    change(out)
    before = state(tmp_path)
    with pytest.raises(DataError, match=f"not made by ifas.*: {named}\n") as error:
        make(out, "again")
    assert str(out) in error.value.what
    with pytest.raises(DataError, match=named):
        discard(out)
    assert state(tmp_path) == before


def test_what_python_compiles_in_an_output_is_no_change_of_the_user_s(tmp_path):
    out = make(tmp_path / "out")
    (out / "sub" / "__pycache__").mkdir()
    (out / "sub" / "__pycache__" / "service.cpython-311.pyc").write_text("compiled")
    assert state(make(out, "second")) == [("sub", ""), ("sub/file", "second")]


def test_a_folder_or_file_that_was_there_first_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    for n in range(5):
        (tmp_path / "folder" / f"{n}.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = state(tmp_path)
    with pytest.raises(DataError, match=r"0\.txt, 1\.txt, 2\.txt and 2 more"):
        make(tmp_path / "folder")
    with pytest.raises(DataError, match=r"not made by ifas.*: file\n"), producing(tmp_path / "file"):
        pytest.fail("the work began")
    assert state(tmp_path) == before


def test_our_own_output_is_replaced_even_where_parts_are_gone(tmp_path):
    out = make(tmp_path / "out")
    make(out, "second")
    (out / "sub" / "file").unlink()
    assert state(make(out, "third")) == [("sub", ""), ("sub/file", "third")]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    (tmp_path / "link").symlink_to(tmp_path)
    make(tmp_path / "link" / "out", "fourth")
    discard(out)
    assert not out.exists()


@pytest.mark.parametrize("there", ["file", "folder"])
def test_an_empty_place_is_taken(tmp_path, there):
    out = tmp_path / "out"
    out.touch() if there == "file" else out.mkdir()
    assert (make(out) / "sub" / "file").read_text() == "made"
    with pytest.raises(DataError), producing(tmp_path / "other" / "x") as beside:
        beside.write_text("half")
        raise DataError("no")
    assert list((tmp_path / "other").iterdir()) == []


def test_a_failure_leaves_the_older_output_and_a_kill_keeps_it_ours(tmp_path, monkeypatch):
    out = make(tmp_path / "out")
    before = state(tmp_path)
    with pytest.raises(RuntimeError), producing(out) as beside:
        beside.mkdir()
        raise RuntimeError
    assert state(tmp_path) == before

    def stop(*_args):
        raise KeyboardInterrupt

    for _ in range(3):  # after it was recorded, before it is in place
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(files, "_swap", stop)
            make(out, "never")
    assert state(tmp_path) == before
    require_ours(out)
    assert (make(out, "second") / "sub" / "file").read_text() == "second"


def test_a_file_that_comes_while_we_work_is_not_lost(tmp_path):
    out = make(tmp_path / "out")
    with pytest.raises(DataError, match=r"notes\.txt"), producing(out) as beside:
        beside.mkdir()
        (out / "notes.txt").write_text("mine")
    assert ("out/notes.txt", "mine") in state(tmp_path)
    assert ("out/sub/file", "made") in state(tmp_path)


def test_places_that_are_no_outputs(tmp_path, monkeypatch):
    user = tmp_path / "user"
    (user / "here").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.chdir(user / "here")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    (tmp_path / "file").touch()
    home = Path(os.environ["IFAS_HOME"])
    for place, said in (
        (Path("."), "current folder"),
        (Path(".."), "current folder"),
        (Path("/"), "current folder"),
        (user, "current folder"),
        (home, "ifas home"),
        (tmp_path / "link", "symbolic link to .*theirs"),
        (tmp_path / "pipe", "neither a file nor a folder"),
        (tmp_path / "file" / "below", "can't be written"),
    ):
        with pytest.raises(IfasError, match=said), producing(place):
            pytest.fail("the work began")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="it holds the home"):
        make(user)
    assert (tmp_path / "theirs").is_dir()
    assert (tmp_path / "link").is_symlink()
