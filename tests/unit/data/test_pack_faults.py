"""Packing and publishing are killed at random points: the next run completes, with the result of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifas.core.errors import DataError
from ifas.core.files import sha256_tree
from ifas.core.manifest import read_manifest
from ifas.core.picture_inspection import inspect_rows
from ifas.data.pack import pack
from ifas.data.registry import Registry
from ifas.data.shards import ShardImages
from tests.unit.data.pictures import folder_dataset, picture, put

OPTIONS = {"name": "tiny", "licence": "CC0-1.0", "shard_bytes": 9_000, "workers": 2}
#: For packing in the test itself; the result does not depend on the number of processes.
ALONE = {**OPTIONS, "workers": 1}
#: Subjects whose packing takes so long that a test can step in, on a busy machine as well.
MANY = 120
PACK = """
import sys; from pathlib import Path
from ifas.data.pack import pack
import numpy, pyarrow.parquet
print("go", flush=True)
print(pack("folder", Path(sys.argv[1]), Path(sys.argv[2]), **{options}).resumed, flush=True)
""".replace("{options}", repr(OPTIONS))
PUBLISH = """
import sys; from pathlib import Path
from ifas.data.registry import Registry
print("go", flush=True)
print(Registry(Path(sys.argv[2])).publish(Path(sys.argv[1])).tag, flush=True)
"""


def raw_dataset(root: Path, subjects: int = 12) -> Path:
    folder_dataset(root, subjects=subjects, domains=("desk", "door", "hall"))
    for n in range(6):  # large files make the moments between two shards longer
        put(root / "desk/live/s0" / f"large{n}.png", picture(900 + n, 700, 700, "PNG"))
    put(root / "desk/live/s0/cut.jpg", picture(5)[:300])
    put(root / "door/replay/s1/copy.jpg", (root / "desk/live/s0/0.jpg").read_bytes())
    put(root / "door/print.a4/s1/again.jpg", (root / "desk/print.a4/s0/0.jpg").read_bytes())
    return root


def started(code: str, *arguments: Path) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell has its background jobs, which tests may be, ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "go\n", child.communicate()
    return child


def pieces_done(out: Path) -> int:
    return len(list(out.with_name(f".{out.name}.packing").glob("[0-9]*")))


def killed(child: subprocess.Popen, after: float) -> bool:
    """Kills a child and all it started; whether it was still running."""
    time.sleep(after)
    alive = child.poll() is None
    if alive:
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    return alive


@pytest.mark.slow
def test_packing_killed_eight_times(tmp_path: Path) -> None:
    raw = raw_dataset(tmp_path / "raw")
    quiet = pack("folder", raw, tmp_path / "quiet", **ALONE)  # type: ignore[arg-type]
    expected = sha256_tree(tmp_path / "quiet")
    dice = random.Random(4)
    kills = resumed = rounds = 0
    while kills < 8:
        rounds += 1
        assert rounds < 40, f"only {kills} of {rounds} runs were still alive when they were to be killed"
        out = tmp_path / f"out{rounds}"
        for _ in range(dice.randint(1, 4)):
            # A random number of pieces after the last kill, and then a moment that may lie anywhere in the next one.
            target = pieces_done(out) + dice.randint(0, 5)
            child = started(PACK, raw, out)
            while child.poll() is None and pieces_done(out) < target:
                time.sleep(0.001)
            kills += killed(child, dice.uniform(0, 0.02))
            assert not out.exists() or sha256_tree(out) == expected
        child = started(PACK, raw, out)
        text, error = child.communicate(timeout=60)
        assert child.returncode == 0, error
        resumed += int(text) > 0
        assert sha256_tree(out) == expected
        assert not list(tmp_path.glob(".*")), "nothing unfinished is left beside the output"
    assert resumed, "no run went on where another was stopped"
    rows = read_manifest(tmp_path / "quiet")
    assert len(rows) == quiet.rows
    assert rows["sample_id"].is_unique
    images = ShardImages(tmp_path / "quiet")
    for row in rows.itertuples():
        assert images.read(row.shard, row.row) == (raw / row.source).read_bytes()


@pytest.mark.slow
def test_publishing_killed_four_times(tmp_path: Path) -> None:
    raw = raw_dataset(tmp_path / "raw")
    pack("folder", raw, tmp_path / "one", **ALONE)  # type: ignore[arg-type]
    put(raw / "desk/live/s3/new.jpg", picture(4711))
    pack("folder", raw, tmp_path / "two", **ALONE)  # type: ignore[arg-type]

    def half_written(registry: Path) -> list[Path]:
        return [p for p in Path(f"{registry}-remote").rglob(".*.tmp") if p.is_file()]

    def state(registry: Path) -> tuple[set[str], list[str]]:
        remote = Path(f"{registry}-remote")
        files = {p.relative_to(remote).as_posix() for p in remote.rglob("*") if p.is_file()}
        files -= {p.relative_to(remote).as_posix() for p in half_written(registry)}
        return files, sorted(p.name for p in (registry / "datasets").iterdir() if p.suffix in (".json", ".dvc"))

    quiet = Registry.init(tmp_path / "quiet")
    began = time.monotonic()
    for folder in ("one", "two"):
        quiet.publish(tmp_path / folder)
    seconds = (time.monotonic() - began) / 2
    dice = random.Random(5)
    kills = turn = 0
    while kills < 4:
        turn += 1
        assert turn < 20, f"only {kills} publications were still running when they were to be killed"
        path = tmp_path / f"registry{turn}"
        Registry.init(path)
        before = kills
        for number, folder in enumerate(("one", "two"), start=1):
            kills += killed(started(PUBLISH, tmp_path / folder, path), dice.uniform(0, 0.9 * seconds))
            child = started(PUBLISH, tmp_path / folder, path)
            text, error = child.communicate(timeout=120)
            assert child.returncode == 0, error
            assert text.strip() == f"tiny/v{number}"
        # Neither a commit too many, nor an object that no revision names, nor one that is missing.
        assert state(path) == state(tmp_path / "quiet")
        # DVC copies into a folder under temporary names; only a kill may leave them.
        assert kills > before or not half_written(path)
        log = subprocess.run(["git", "-C", str(path), "log", "--format=%s"], capture_output=True, text=True, check=True)
        assert log.stdout.count("tiny: ") == 2
        status = subprocess.run(["git", "-C", str(path), "status", "--porcelain"], capture_output=True, text=True)
        assert status.stdout == ""
        Registry(path).fetch("tiny", "v1", tmp_path / f"fetched{turn}")
        assert sha256_tree(tmp_path / f"fetched{turn}") == sha256_tree(tmp_path / "one")


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"PPid:\t{pid}\n" in (entry / "status").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def packers(child: subprocess.Popen) -> list[int]:
    """The processes that pack for `child`, once they do."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = [p for p in children(child.pid) if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]
        if len(found) == 2:
            return found
        time.sleep(0.005)
    raise AssertionError(f"no two processes pack: {children(child.pid)}")


def test_a_packing_process_that_is_killed_is_told_and_the_rest_kept(tmp_path: Path) -> None:
    raw, out = raw_dataset(tmp_path / "raw", MANY), tmp_path / "out"
    child = started(PACK, raw, out)
    victim = packers(child)[0]
    while pieces_done(out) < 3:
        time.sleep(0.001)
    os.kill(victim, signal.SIGKILL)
    _, error = child.communicate(timeout=60)
    assert child.returncode != 0
    assert "was killed" in error
    assert "fewer workers" in error
    assert pack("folder", raw, out, **ALONE).resumed > 0  # type: ignore[arg-type]
    pack("folder", raw, tmp_path / "quiet", **ALONE)  # type: ignore[arg-type]
    assert sha256_tree(out) == sha256_tree(tmp_path / "quiet")


def test_an_interrupted_packing_stops_its_processes_and_can_go_on(tmp_path: Path) -> None:
    raw, out = raw_dataset(tmp_path / "raw", MANY), tmp_path / "out"
    child = started(PACK, raw, out)
    mine = packers(child)
    while pieces_done(out) < 2:
        time.sleep(0.001)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: all of them are told
    _, error = child.communicate(timeout=60)
    assert child.returncode != 0
    assert error.count("Traceback") == 1, "only the process that the user started says anything"
    assert not any(Path(f"/proc/{pid}/cmdline").exists() for pid in mine)
    assert not list(out.with_name(".out.packing").glob("*.part"))
    assert pack("folder", raw, out, **ALONE).resumed > 0  # type: ignore[arg-type]


def test_packing_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    child = started(PACK, raw_dataset(tmp_path / "raw"), tmp_path / "out")
    mine = packers(child)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in mine):
        assert time.monotonic() < deadline, "they go on without it"
        time.sleep(0.01)


def test_a_disk_that_fills_up_ends_all_processes(tmp_path: Path) -> None:
    raw = raw_dataset(tmp_path / "raw")
    code = PACK.replace("import sys;", "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000));")
    child = started(code, raw, tmp_path / "out")
    _, error = child.communicate(timeout=60)
    assert child.returncode != 0
    assert "File too large" in error
    assert not (tmp_path / "out").exists()


def test_a_changed_dataset_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = raw_dataset(tmp_path / "raw")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ifas.data.pack.packing._assemble", stop)
    with pytest.raises(KeyboardInterrupt):
        pack("folder", raw, tmp_path / "out", **ALONE)  # type: ignore[arg-type]
    monkeypatch.undo()
    put(raw / "desk/live/s3/new.jpg", picture(4711))
    assert pack("folder", raw, tmp_path / "out", **ALONE).resumed == 0  # type: ignore[arg-type]
    pack("folder", raw, tmp_path / "fresh", **ALONE)  # type: ignore[arg-type]
    assert sha256_tree(tmp_path / "out") == sha256_tree(tmp_path / "fresh")


def test_a_damaged_journal_costs_time_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = raw_dataset(tmp_path / "raw")
    pack("folder", raw, tmp_path / "fresh", **ALONE)  # type: ignore[arg-type]
    journal = tmp_path / ".out.packing"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for damage in ("facts", "shard", "rows gone", "rows cut", "key"):
        monkeypatch.setattr("ifas.data.pack.packing._assemble", stop)
        with pytest.raises(KeyboardInterrupt):
            pack("folder", raw, tmp_path / "out", **ALONE)  # type: ignore[arg-type]
        monkeypatch.undo()
        piece = journal / "00002"
        if damage == "facts":
            text = (piece / "piece.json").read_text()
            (piece / "piece.json").write_text(text[:-40])
        elif damage == "shard":
            (piece / "shards" / "shard-00000.parquet").write_bytes(b"half a shard")
        elif damage == "rows gone":
            (piece / "rows.parquet").unlink()
        elif damage == "rows cut":  # what is left can be read
            pq.write_table(pq.read_table(piece / "rows.parquet")[:-1], piece / "rows.parquet")
        else:
            (journal / "key.json").write_text('{"sam')
        report = pack("folder", raw, tmp_path / "out", **ALONE)  # type: ignore[arg-type]
        assert (report.resumed > 0) == (damage != "key")
        assert report.resumed < 12 * 3 * 3 * 2 + 9  # all files of the raw dataset
        assert sha256_tree(tmp_path / "out") == sha256_tree(tmp_path / "fresh")


def test_two_packings_into_one_folder(tmp_path: Path) -> None:
    raw = raw_dataset(tmp_path / "raw")
    child = started(PACK, raw, tmp_path / "out")
    deadline = time.monotonic() + 20
    while not (tmp_path / ".out.packing" / "key.json").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGSTOP)
    try:
        with pytest.raises(DataError, match="another process is packing"):
            pack("folder", raw, tmp_path / "out", **ALONE)  # type: ignore[arg-type]
    finally:
        os.kill(child.pid, signal.SIGCONT)
    child.communicate(timeout=60)
    assert child.returncode == 0
    assert read_manifest(tmp_path / "out")["sample_id"].is_unique


@settings(max_examples=60)
@given(data=st.data())
def test_any_bytes_and_listings_end_in_documented_errors(data: st.DataObject, tmp_path_factory) -> None:
    root = tmp_path_factory.mktemp("fuzz")
    raw = folder_dataset(root / "raw", subjects=1, domains=("desk",))
    whole = picture(1, 80, 60, data.draw(st.sampled_from(["JPEG", "PNG", "WEBP"])))
    cut = data.draw(st.integers(0, len(whole)))
    at = data.draw(st.integers(0, len(whole) - 1))
    put(raw / "desk/live/s0/x.jpg", whole[:at] + data.draw(st.binary(max_size=8)) + whole[at:cut])
    listing = data.draw(st.one_of(st.none(), st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
    if listing is not None:
        put(raw / data.draw(st.sampled_from(["samples.jsonl", "dataset.json"])), listing)
    try:
        report = pack("folder", raw, root / "out", name="tiny", licence="CC0-1.0")
    except DataError:
        assert not (root / "out").exists()
    else:
        rows = read_manifest(root / "out")
        assert report.rows == len(rows)
        # What went in may be damaged inside: then looking at it says so, and nothing else happens.
        looked = inspect_rows(rows, ShardImages(root / "out"))
        assert (looked["phash"].isna() == looked["reason"].notna()).all()
        assert looked["reason"].notna().sum() <= 1
        assert report.rows + len(report.refused) + len(report.duplicates) >= 6


def test_a_manifest_whose_text_is_damaged_is_refused(tmp_path: Path) -> None:
    pack("folder", folder_dataset(tmp_path / "raw", subjects=1), tmp_path / "out", name="t", licence="x")
    file = tmp_path / "out" / "manifest.parquet"
    table = pq.read_table(file)
    names = pa.array([b"\x80"] * len(table), pa.binary()).view(pa.string())  # no valid UTF-8
    pq.write_table(table.set_column(table.column_names.index("shard"), "shard", names), file)
    with pytest.raises(DataError, match="can't be read as Parquet"):
        read_manifest(tmp_path / "out")


@settings(max_examples=40)
@given(data=st.data())
def test_damaged_dataset_folders_end_in_documented_errors(data: st.DataObject, tmp_path_factory) -> None:
    root = tmp_path_factory.mktemp("damage")
    pack("folder", folder_dataset(root / "raw", subjects=1, domains=("desk",)), root / "out", name="t", licence="x")
    victim = data.draw(st.sampled_from(["manifest.parquet", "dataset.json", "shards/shard-00000.parquet"]))
    path = root / "out" / victim
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at : at + 3] = data.draw(st.binary(max_size=6))
    path.write_bytes(bytes(whole))
    try:
        rows = read_manifest(root / "out")
        images = ShardImages(root / "out")
        read = [images.read(str(r.shard), int(r.row)) for r in rows.head(3).itertuples()]
        assert all(isinstance(one, bytes) for one in read)
    except DataError as error:
        said = error
    else:
        said = None
    assert said is None or said.what
