import subprocess
import sys
import textwrap
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifas.core.errors import IfasError, MachineError
from ifas.core.files import locked, replacing, sha256_json, sha256_tree, write_json


def test_replacing_a_folder_leaves_the_old_one_on_error(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("kept")
    with pytest.raises(RuntimeError), replacing(target) as beside:
        beside.mkdir()
        (beside / "new").write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "old"]


def test_replacing_a_folder_swaps_it_whole(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("")
    with replacing(target) as beside:
        beside.mkdir()
        (beside / "new").write_text("")
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_tree_hash_sees_names_and_content(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    first = sha256_tree(tmp_path)
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    second = sha256_tree(tmp_path)
    (tmp_path / "a" / "y").write_text("2")
    assert len({first, second, sha256_tree(tmp_path)}) == 3


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_json_hash_does_not_depend_on_key_order(value):
    assert sha256_json(value) == sha256_json(dict(reversed(list(value.items()))))


def test_write_json_leaves_nothing_beside(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"bad": object()})
    assert list(tmp_path.iterdir()) == []


def child(code: str) -> subprocess.Popen[str]:
    """A process of its own; `code` prints a line when it has come to where it waits."""
    script = "import os, sys, time\nfrom pathlib import Path\nfrom ifas.core import files\n" + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


HALF = """
    with files.replacing(Path({target!r})) as beside:
        beside.mkdir()
        (beside / "half").write_text("x")
        print("here", flush=True)
        time.sleep(60)
"""


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_a_living_one_writes_is_not(tmp_path):
    target = tmp_path / "out"
    living, killed = (child(HALF.format(target=str(target))) for _ in range(2))
    for process in (living, killed):
        assert process.stdout.readline() == "here\n"
    kill(killed)
    (tmp_path / ".out.mine.part").mkdir()
    write_json(tmp_path / "other", {})
    assert len(list(tmp_path.glob(".out.*.part"))) == 3, "another target is no business of it"
    with replacing(target) as beside:
        beside.write_text("whole")
    left = sorted(p.name for p in tmp_path.iterdir())
    kill(living)
    assert target.read_text() == "whole"
    assert len([name for name in left if name.startswith(".out.")]) == 2, (
        "the living one's, and a name that is not ours"
    )
    assert ".out.mine.part" in left


def test_a_kill_in_the_middle_of_a_swap_loses_no_folder(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("kept")
    killed = child(f"""
        move = os.rename
        def rename(source, to):
            move(source, to)
            print("moved away", flush=True)
            os.kill(os.getpid(), 9)
        files.os.rename = rename
        with files.replacing(Path({str(target)!r})) as beside:
            beside.mkdir()
            (beside / "new").write_text("x")
    """)
    assert killed.stdout.readline() == "moved away\n"
    killed.wait()
    assert not target.exists()
    with pytest.raises(RuntimeError), replacing(target):
        raise RuntimeError
    assert (target / "old").read_text() == "kept"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_two_processes_replace_one_folder_over_and_over(tmp_path):
    target = tmp_path / "out"
    both = [
        child(f"""
            for n in range(200):
                with files.replacing(Path({str(target)!r})) as beside:
                    beside.mkdir()
                    (beside / "file").write_text(str(n))
        """)
        for _ in range(2)
    ]
    assert [process.wait() for process in both] == [0, 0]
    assert (target / "file").read_text() == "199"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_file_takes_the_place_of_a_folder_and_the_other_way_round_but_no_link_is_followed(tmp_path):
    target, theirs = tmp_path / "out", tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").write_text("mine")
    target.symlink_to(theirs)
    for n in range(3):
        with replacing(target) as beside:
            beside.mkdir()
            (beside / str(n)).touch()
        assert [p.name for p in target.iterdir()] == [str(n)]
        with replacing(target) as beside:
            beside.write_text("text")
        assert target.read_text() == "text"
    assert (theirs / "file").read_text() == "mine"


def test_a_lock_is_waited_for_and_a_kill_frees_it(tmp_path):
    holder = child(f"""
        with files.locked(Path({str(tmp_path / "lock")!r})):
            print("held", flush=True)
            time.sleep(60)
    """)
    assert holder.stdout.readline() == "held\n"
    told = []

    def waiting(since: str) -> None:
        told.append(datetime.fromisoformat(since))
        kill(holder)

    with locked(tmp_path / "lock", waiting):
        assert abs((datetime.now() - told[0]).total_seconds()) < 60
    with locked(tmp_path / "lock", waiting):
        assert len(told) == 1


def test_a_lock_that_can_not_be_made_is_an_error_to_act_on(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(IfasError, match="can't be locked"), locked(tmp_path / "file" / "lock"):
        pytest.fail("went on without")


def test_a_mount_point_is_refused_before_the_work():
    with pytest.raises(MachineError, match=r"/proc is a mount point"), replacing(Path("/proc")):
        pytest.fail("the work began")
