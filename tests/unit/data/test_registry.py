import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ifas.core.errors import CorruptShardError, DataError, MachineError, RegistryError
from ifas.core.files import read_json, sha256_tree
from ifas.data.dvc_repo import DvcFailed, explain
from ifas.data.pack import pack
from ifas.data.registry import Registry
from tests.unit.data.pictures import folder_dataset


def packed(root: Path, seed: int, name: str = "tiny") -> Path:
    raw = folder_dataset(root / f"raw-{name}-{seed}", seed, subjects=2, domains=("desk",))
    pack("folder", raw, root / f"{name}-{seed}", name=name, licence="CC0-1.0")
    return root / f"{name}-{seed}"


def git(repo: Path, *args: str) -> str:
    return subprocess.run(["git", "-C", str(repo), *args], check=True, capture_output=True, text=True).stdout.strip()


def state(repo: Path) -> tuple[str, str, str]:
    """What a failed publication must leave alone: commit, tags, work tree."""
    return git(repo, "rev-parse", "HEAD"), git(repo, "tag"), git(repo, "status", "--porcelain")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path], list[str]]:
    """A folder with a registry of two revisions, the datasets, and the revisions."""
    root = tmp_path_factory.mktemp("two")
    registry = Registry.init(root / "registry")
    datasets = [packed(root, seed) for seed in (1, 2)]
    revisions = [registry.publish(d, message=f"version {n}").revision for n, d in enumerate(datasets, start=1)]
    return root, datasets, revisions


@pytest.fixture
def copy(two: tuple[Path, list[Path], list[str]], tmp_path: Path) -> Registry:
    """A registry of one's own: folder and remote copied, as when both are moved to another place."""
    for name in ("registry", "registry-remote"):
        shutil.copytree(two[0] / name, tmp_path / name, symlinks=True)
    return Registry.init(tmp_path / "registry", str(tmp_path / "registry-remote"))


def objects(registry: Registry, ending: str = "") -> list[Path]:
    """Files of the remote, largest first."""
    remote = Path(f"{registry.path}-remote")
    return sorted((p for p in remote.rglob(f"*{ending}") if p.is_file()), key=lambda p: -p.stat().st_size)


def test_old_and_new_revision_are_fetched_as_published(two: tuple[Path, list[Path], list[str]], tmp_path: Path) -> None:
    root, datasets, revisions = two
    registry = Registry(root / "registry")
    before = state(root / "registry")
    for named, n in ((revisions[0], 0), ("HEAD", 1)):
        fetched = registry.fetch("tiny", named, tmp_path / f"out{n}")
        assert sha256_tree(tmp_path / f"out{n}") == sha256_tree(datasets[n])
        assert fetched.revision == revisions[n]
        assert fetched.rows == 12
        assert fetched.path == tmp_path / f"out{n}"
    assert state(root / "registry") == before
    assert before[2] == ""


def test_revisions_have_many_names(two: tuple[Path, list[Path], list[str]], tmp_path: Path) -> None:
    root, _, revisions = two
    registry = Registry(root / "registry")
    assert revisions[0] != revisions[1]
    for n, names in enumerate((("tiny/v1", "v1", "tiny@v1", revisions[0], revisions[0][:12]), ("HEAD", "main", "v2"))):
        for name in names:
            assert registry.resolve("tiny", name) == revisions[n]
    listed = registry.revisions("tiny")
    assert [(r.tag, r.revision, r.message) for r in listed] == [
        ("tiny/v2", revisions[1], "version 2"),
        ("tiny/v1", revisions[0], "version 1"),
    ]
    assert str(listed[0]).startswith("tiny/v2")
    record = read_json(root / "registry/datasets/tiny.json")
    assert record["licences"] == {"CC0-1.0": 12}


def test_by_git_url(two: tuple[Path, list[Path], list[str]], tmp_path: Path) -> None:
    root, datasets, revisions = two
    registry = Registry(f"file://{root / 'registry'}")
    assert registry.resolve("tiny", "v1") == revisions[0]
    assert registry.fetch("tiny", "main", tmp_path / "out").revision == revisions[1]
    assert sha256_tree(tmp_path / "out") == sha256_tree(datasets[1])
    with pytest.raises(RegistryError, match="is a URL"):
        registry.publish(datasets[0])


def test_unknown_names_list_the_known_ones(two: tuple[Path, list[Path], list[str]], tmp_path: Path) -> None:
    registry = Registry(two[0] / "registry")
    with pytest.raises(RegistryError, match="no revision 'v9'") as error:
        registry.fetch("tiny", "v9", tmp_path / "out")
    assert error.value.fix == "newest known: tiny/v2, tiny/v1"
    with pytest.raises(RegistryError, match=r"(?s)no dataset 'huge'.*known there: tiny") as error:
        registry.fetch("huge", "HEAD", tmp_path / "out")
    with pytest.raises(RegistryError, match="no DVC remote 'backup'"):
        registry.fetch("tiny", "HEAD", tmp_path / "out", remote="backup")
    with pytest.raises(RegistryError, match="no revision '--all'"):
        registry.resolve("tiny", "--all")
    with pytest.raises(RegistryError, match="not a dataset registry"):
        Registry(tmp_path / "nowhere").fetch("tiny", "HEAD", tmp_path / "out")
    with pytest.raises(RegistryError, match="can't be cloned"):
        Registry(f"file://{tmp_path}/nowhere").resolve("tiny")
    assert list(tmp_path.iterdir()) == []


def test_the_same_content_is_the_same_revision(copy: Registry, two: tuple[Path, list[Path], list[str]]) -> None:
    repo = Path(copy.path)
    before = state(repo)
    again = copy.publish(two[1][1])
    assert (again.revision, again.tag, again.changed) == (two[2][1], "tiny/v2", False)
    assert state(repo) == before
    # Killed after the commit: the tag is made up for.
    git(repo, "tag", "-d", "tiny/v2")
    assert copy.publish(two[1][1]) == again
    assert state(repo) == before


@pytest.mark.slow
def test_publishing_known_content_again_repairs_the_remote(
    copy: Registry, two: tuple[Path, list[Path], list[str]], tmp_path: Path
) -> None:
    for lost in [p for p in objects(copy) if p.suffix != ".dir"][:2]:
        lost.unlink()
    assert not copy.publish(two[1][1]).changed
    copy.fetch("tiny", "HEAD", tmp_path / "out")


def test_a_registry_moved_with_its_remote_works(two: tuple[Path, list[Path], list[str]], tmp_path: Path) -> None:
    shutil.copytree(two[0] / "registry", tmp_path / "old/registry", symlinks=True)
    shutil.copytree(two[0] / "registry-remote", tmp_path / "old/registry-remote")
    Registry.init(tmp_path / "old/registry", str(tmp_path / "old/registry-remote"))
    (tmp_path / "old").rename(tmp_path / "new")
    registry = Registry(tmp_path / "new/registry")
    with pytest.raises(RegistryError, match="old/registry-remote is not there"):
        registry.fetch("tiny", "HEAD", tmp_path / "out")
    Registry.init(tmp_path / "new/registry")
    assert registry.fetch("tiny", "v1", tmp_path / "out").revision == two[2][0]


@pytest.mark.slow
def test_a_remote_that_is_gone(copy: Registry, two: tuple[Path, list[Path], list[str]], tmp_path: Path) -> None:
    repo, remote = Path(copy.path), Path(f"{copy.path}-remote")
    before = state(repo)
    remote.rename(tmp_path / "away")
    fresh = packed(tmp_path, 3)
    for attempt in (lambda: copy.fetch("tiny", "v1", tmp_path / "out"), lambda: copy.publish(fresh)):
        with pytest.raises(RegistryError) as error:
            attempt()
        assert str(remote) in error.value.what
        assert error.value.fix
    assert state(repo) == before
    assert not remote.exists()
    assert not (tmp_path / "out").exists()
    # It is back: the same command completes.
    (tmp_path / "away").rename(remote)
    assert copy.publish(fresh).tag == "tiny/v3"


def test_a_full_disk_is_told_as_one() -> None:
    said = "[Errno 28] No space left on device: '/remote/files/md5/e4/930' -> '/not found/connect/shard.parquet'"
    error = explain(DvcFailed(said), "fetching toy", "/remote")
    assert isinstance(error, MachineError)
    assert error.fix.startswith("free disk space")


@pytest.mark.parametrize(
    ("said", "repeat"),
    [
        ('Could not connect to the endpoint URL: "http://127.0.0.1:1/ifas/files/md5/7f/f5.dir"', True),
        ("An error occurred (503) when calling the GetObject operation: ServiceUnavailable", True),
        ("An error occurred (InvalidAccessKeyId) when calling the GetObject operation", False),
        ("something that nobody has seen", False),
    ],
)
def test_only_a_remote_that_is_away_is_tried_again(said: str, repeat: bool) -> None:
    error = explain(DvcFailed(said), "fetching toy", "s3://ifas/registry")
    assert isinstance(error, RegistryError)
    assert error.repeat is repeat


@pytest.mark.slow
def test_a_push_that_fails_leaves_no_revision(
    copy: Registry, two: tuple[Path, list[Path], list[str]], tmp_path: Path
) -> None:
    repo, remote = Path(copy.path), Path(f"{copy.path}-remote")
    before = state(repo)
    fresh = packed(tmp_path, 4)
    shutil.rmtree(remote)
    put_in_the_way = remote / "files"
    remote.mkdir()
    put_in_the_way.write_text("not a folder")
    with pytest.raises(RegistryError, match="publishing tiny failed"):
        copy.publish(fresh)
    assert state(repo) == before
    put_in_the_way.unlink()
    assert copy.publish(fresh).tag == "tiny/v3"
    copy.fetch("tiny", "v3", tmp_path / "out")
    # The other revisions' objects are lost with the remote; that is said, too.
    with pytest.raises(RegistryError, match=r"does not hold|No such file"):
        copy.fetch("tiny", "v1", tmp_path / "out")


@pytest.mark.slow
def test_corrupt_objects_in_the_remote(copy: Registry, two: tuple[Path, list[Path], list[str]], tmp_path: Path) -> None:
    copy.fetch("tiny", "v1", tmp_path / "out")
    before = sha256_tree(tmp_path / "out")
    shards = {p.stat().st_size: p for p in objects(copy)}
    shard = shards[next((two[1][1] / "shards").iterdir()).stat().st_size]
    good = shard.read_bytes()
    shard.chmod(0o644)
    shard.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(CorruptShardError, match=r"shard-00000.parquet of tiny at .* is corrupt: it can't be read"):
        copy.fetch("tiny", "v2", tmp_path / "out")
    shard.write_bytes(good)
    for listing in objects(copy, ".dir"):
        listing.chmod(0o644)
        listing.write_text("garbage")
    with pytest.raises(CorruptShardError, match="corrupt"):
        copy.fetch("tiny", "v2", tmp_path / "out")
    assert sha256_tree(tmp_path / "out") == before


def test_a_corrupt_dataset_is_not_published(copy: Registry, tmp_path: Path) -> None:
    before = state(Path(copy.path))
    fresh = packed(tmp_path, 5)
    with (fresh / "shards/shard-00000.parquet").open("ab") as shard:
        shard.write(b"x")
    with pytest.raises(CorruptShardError, match=r"shard-00000\.parquet"):
        copy.publish(fresh)
    assert state(Path(copy.path)) == before


@pytest.mark.slow
def test_killed_between_push_and_commit(copy: Registry, tmp_path: Path) -> None:
    """SIGKILL from a git hook, when everything is pushed and staged: the next call completes it."""
    repo = Path(copy.path)
    fresh = packed(tmp_path, 6)
    hook = repo / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nkill -9 $(cat {tmp_path / 'pid'})\nexit 1\n")
    hook.chmod(0o755)
    code = (
        "import os, pathlib, sys; from ifas.data.registry import Registry\n"
        "pathlib.Path(sys.argv[3]).write_text(str(os.getpid()))\n"
        "Registry(sys.argv[1]).publish(pathlib.Path(sys.argv[2]))\n"
    )
    head = git(repo, "rev-parse", "HEAD")
    killed = subprocess.run(
        [sys.executable, "-c", code, str(repo), str(fresh), str(tmp_path / "pid")],
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert killed.returncode == -signal.SIGKILL
    assert git(repo, "rev-parse", "HEAD") == head
    assert git(repo, "status", "--porcelain") != ""
    hook.unlink()
    # Old revisions can be fetched all the while.
    copy.fetch("tiny", "v2", tmp_path / "out")
    done = copy.publish(fresh)
    assert (done.tag, done.changed) == ("tiny/v3", True)
    assert git(repo, "status", "--porcelain") == ""
    copy.fetch("tiny", "v3", tmp_path / "out")
    assert sha256_tree(tmp_path / "out") == sha256_tree(fresh)


@pytest.mark.slow
def test_publishers_wait_for_each_other(tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "registry")
    datasets = [packed(tmp_path, 7, "one"), packed(tmp_path, 8, "two"), packed(tmp_path, 9, "one")]
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(registry.publish, datasets))
    assert {d.tag for d in done} == {"one/v1", "one/v2", "two/v1"}
    assert all(d.changed for d in done)
    assert git(Path(registry.path), "status", "--porcelain") == ""
    for name, revision in (("one", "v1"), ("one", "v2"), ("two", "v1")):
        registry.fetch(name, revision, tmp_path / f"{name}-{revision}")


def test_a_revision_built_on_an_older_one_is_refused(
    copy: Registry, two: tuple[Path, list[Path], list[str]], tmp_path: Path
) -> None:
    """A change of a fetched dataset must not undo what others have published since."""
    before = state(Path(copy.path))
    with pytest.raises(RegistryError, match="a new revision since"):
        copy.publish(packed(tmp_path, 3), onto=two[2][0])
    assert state(Path(copy.path)) == before


def test_init_again_changes_nothing(copy: Registry) -> None:
    before = state(Path(copy.path))
    Registry.init(Path(copy.path))
    assert state(Path(copy.path)) == before


def test_init_refuses(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").write_text("years of work")
    with pytest.raises(RegistryError, match="is not a dataset registry"):
        Registry.init(tmp_path / "home")
    with pytest.raises(RegistryError) as error:
        Registry.init(tmp_path / "r", "s3://key:hunter2@bucket/x")
    assert "hunter2" not in str(error.value)
    with pytest.raises(RegistryError, match="endpoint"):
        Registry.init(tmp_path / "r", endpoint="http://127.0.0.1:9")
    assert not (tmp_path / "r").exists()


def test_fetch_leaves_other_peoples_folders_alone(two: tuple[Path, list[Path], list[str]], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="not a dataset folder"):
        Registry(two[0] / "registry").fetch("tiny", "HEAD", tmp_path)
    assert (tmp_path / "thesis.tex").exists()
    # A file of the user's inside a dataset folder would go with the folder.
    mine = packed(tmp_path / "data", 1)
    (mine / "shards" / "notes.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"shards/notes\.txt"):
        Registry(two[0] / "registry").fetch("tiny", "HEAD", mine)
    with pytest.raises(DataError, match=r"shards/notes\.txt"):
        packed(tmp_path / "data", 1)
    assert (mine / "shards" / "notes.txt").exists()


def test_a_dataset_folder_where_the_registry_keeps_its_checkout_is_refused(
    two: tuple[Path, list[Path], list[str]], copy: Registry
) -> None:
    place = Path(copy.path) / "datasets" / "tiny"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(two[1][0], place)
    for dataset in (place, place.parent / ".." / "datasets" / "tiny"):
        with pytest.raises(RegistryError, match="lies where the registry keeps"):
            copy.publish(dataset)
    assert sha256_tree(place) == sha256_tree(two[1][0])


def test_what_a_user_put_into_the_registrys_checkout_is_refused_by_name(
    two: tuple[Path, list[Path], list[str]], copy: Registry
) -> None:
    place = Path(copy.path) / "datasets" / "tiny"
    place.mkdir(parents=True, exist_ok=True)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt, which is not part of a dataset"):
        copy.publish(two[1][0])
    assert (place / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("file", "text"), [("other.json", '{"my": "notes"}'), ("other.json", "[]"), (".gitignore", "*")]
)
def test_a_file_of_the_user_s_in_a_repository_that_becomes_a_registry_is_refused_by_name(
    two: tuple[Path, list[Path], list[str]], tmp_path: Path, file: str, text: str
) -> None:
    repo = tmp_path / "project"
    (repo / "datasets").mkdir(parents=True)
    git(repo, "init", "-q")
    (repo / "datasets" / file).write_text(text)
    dataset = shutil.copytree(two[1][0], tmp_path / "other")
    index = read_json(dataset / "dataset.json")
    (dataset / "dataset.json").write_text(json.dumps({**index, "name": "other"}))
    with pytest.raises(RegistryError, match=f"{file} was not made by ifas"):
        Registry.init(repo).publish(dataset)
    assert (repo / "datasets" / file).read_text() == text
