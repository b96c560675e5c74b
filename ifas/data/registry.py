"""The dataset registry: a git repository with DVC. git holds the revisions, a DVC remote the bytes.

A commit holds the hash of `dataset.json`, and that file the hash of the manifest and, for each shard, a hash over the
ids of its images, which are the hashes of the images. A fetched revision is checked against all of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.errors import CorruptShardError, RegistryError
from ifas.core.files import locked, remove, replacing, sha256_file
from ifas.core.manifest import DATASET_FILE, MANIFEST_FILE, read_manifest
from ifas.core.outputs import overlap
from ifas.core.urls import clean
from ifas.data.dataset import check_hash, check_name, check_own, check_replaceable, read_index, verify
from ifas.data.dvc_repo import CONFIG, DvcConfig, DvcFailed, clone, dvc, explain, forget, git, held, is_url
from ifas.data.registry_setup import set_up
from ifas.data.revisions import (
    FOLDER,
    before,
    commit_record,
    last_change,
    read_record,
    record_of,
    require,
    resolve,
    tag_of,
    tags_of,
    undo,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Published:
    """A dataset revision. `changed` is False where the newest revision held the same content already."""

    revision: str
    tag: str
    changed: bool


@dataclass(frozen=True)
class Fetched:
    """A dataset folder brought here. `revision` is the full id of the commit that published it."""

    path: Path
    revision: str
    dataset_sha256: str
    rows: int


@dataclass(frozen=True)
class Revision:
    """One published version of a dataset."""

    tag: str
    revision: str
    dataset_sha256: str
    rows: int
    message: str

    def __str__(self) -> str:
        return f"{self.tag}  {self.revision[:10]}  {self.rows} images  {self.message}"


class Registry:
    """A dataset registry at a path, or at a git URL (to fetch from only)."""

    def __init__(self, path: Path | str) -> None:
        self.path: Path | str = path if is_url(str(path)) else Path(path)

    @classmethod
    def init(cls, path: Path, remote: str | None = None, *, endpoint: str | None = None) -> Registry:
        """Makes a registry; on one that is there, sets what is asked for and leaves the rest.

        Args:
            path: folder of the registry.
            remote: folder or `s3://bucket/prefix`; by default the folder `<path>-remote`.
            endpoint: URL of an S3 server other than AWS. Credentials come by AWS_* environment variables only.

        Raises:
            RegistryError: `path` holds something else, or `remote` carries a password.
        """
        set_up(path, remote, endpoint)
        return cls(path)

    def publish(self, dataset_dir: Path, *, message: str = "", onto: str = "") -> Published:
        """Adds a dataset folder as a new revision: pushes its bytes to the remote, then commits and tags.

        The content of the newest revision again gives that revision. When the remote can't be reached there is no
        commit, and when the process is killed the next call completes the work; in a remote that is a folder, what DVC
        was copying stays as a file `.*.tmp` that no revision names. On one machine publishers take turns.

        Args:
            onto: the commit that published what the folder was made from; empty: it may replace any.

        Raises:
            CorruptShardError: the folder's files are not those of its index.
            DataError: the registry's checkout of the dataset holds anything that is not part of a dataset.
            RegistryError: no registry there, the folder lies in that checkout, the remote can't be used, or the newest
                revision is another one than `onto`; the registry is as it was before.
            MachineError: no disk space, here or in a remote that is a folder; the registry is as it was before.
        """
        repo = self.local()
        name = str(verify(dataset_dir)["name"])
        check_name(name)
        _check_checkout(repo / FOLDER / name, dataset_dir)
        with locked(_lock_file(repo)):
            _, url = self._config(repo).remote()
            _check_folder(url)
            undo(repo, name)
            if onto and last_change(repo, "HEAD", name) != onto:
                raise RegistryError(
                    f"{name} has got a new revision since {onto[:10]}, on which this one is built", "run it again"
                )
            record = record_of(dataset_dir)
            changed = read_record(repo, "HEAD", name) != record
            try:
                if changed or not _in_remote(repo, name, url):
                    _upload(repo, dataset_dir, name, url)
                if changed:
                    commit_record(repo, name, record, message or f"{name}: {record['rows']} images")
            except BaseException:
                undo(repo, name)
                remove(repo / FOLDER / name)
                raise
            revision = last_change(repo, "HEAD", name)
            return Published(revision, tag_of(repo, name, revision), changed)

    def resolve(self, name: str, revision: str = "HEAD") -> str:
        """The commit that published the content which `name` has at `revision`: it only moves when the data does.

        Args:
            revision: commit, branch, `HEAD`, tag (`demo/v2`), or short for a tag of the dataset (`v2`, `demo@v2`).

        Raises:
            RegistryError: no such registry, revision or dataset; lists the known ones.
        """
        if not is_url(str(self.path)):
            return resolve(self.local(), name, revision)
        with tempfile.TemporaryDirectory(prefix="ifas-registry-") as scratch:
            clone(str(self.path), Path(scratch) / "clone")
            return resolve(Path(scratch) / "clone", name, revision)

    def fetch(self, name: str, revision: str, out: Path, *, remote: str = "") -> Fetched:
        """Brings a dataset at a revision into the folder `out`, every hash checked; `out` appears whole or not at all.

        Reads the remote, by a clone of its own: the registry's work tree is neither used nor changed.

        Args:
            revision: as in `resolve`.
            remote: name of a DVC remote; empty: the registry's default.

        Raises:
            DataError: `out` holds anything that is not part of a dataset.
            RegistryError: no such registry, dataset or revision, or the remote can't be used.
            CorruptShardError: what the remote gave is not what was published.
            MachineError: no disk space.
        """
        check_replaceable(out)
        with self._at(name, revision, remote) as there, replacing(out) as beside:
            there.get({"": beside})
            _check_fetched(beside, there.record, there.called)
        return Fetched(out, there.commit, there.record["dataset_sha256"], there.record["rows"])

    def manifest(self, name: str, revision: str, *, remote: str = "") -> pd.DataFrame:
        """The manifest of a revision, without its images: two small files are fetched, hashes checked.

        Raises:
            RegistryError, CorruptShardError: as `fetch`.
        """
        with self._at(name, revision, remote) as there, tempfile.TemporaryDirectory(prefix="ifas-manifest-") as scratch:
            here = Path(scratch)
            there.get({f"/{file}": here / file for file in (DATASET_FILE, MANIFEST_FILE)})
            if sha256_file(here / DATASET_FILE) != there.record["dataset_sha256"]:
                raise CorruptShardError(f"{DATASET_FILE} of {there.called} is not what was published", RESTORE)
            expected = read_index(here)["manifest_sha256"]
            check_hash(here / MANIFEST_FILE, expected, f"{MANIFEST_FILE} of {there.called}")
            return read_manifest(here)

    def previous(self, name: str, revision: str) -> str | None:
        """The commit that published the version before the one at `revision`; None for the first."""
        if is_url(str(self.path)):
            with tempfile.TemporaryDirectory(prefix="ifas-registry-") as scratch:
                clone(str(self.path), Path(scratch) / "clone")
                return before(Path(scratch) / "clone", name, revision)
        return before(self.local(), name, revision)

    @contextmanager
    def _at(self, name: str, revision: str, remote: str) -> Iterator[_Checkout]:
        """A clone of the registry at a revision, which reads the remote of today's configuration."""
        source = str(self.path) if is_url(str(self.path)) else str(self.local())
        with tempfile.TemporaryDirectory(prefix="ifas-registry-") as scratch:
            repo = Path(scratch) / "clone"
            clone(source, repo)
            commit = resolve(repo, name, revision)
            # Where the bytes are is said by the registry of today, not by that of an old revision.
            config = self._config(repo)
            chosen, url = config.remote(remote)
            _check_folder(url)
            git(repo, "checkout", "-q", "--detach", commit)
            config.set("core", "remote", chosen)
            (repo / CONFIG).write_text(str(config), encoding="utf-8")
            yield _Checkout(repo, name, commit, url, read_record(repo, commit, name) or {})

    def revisions(self, name: str) -> list[Revision]:
        """Published versions of a dataset, newest first. Raises RegistryError listing the known datasets."""
        repo = self.local()
        require(repo, "HEAD", name)
        found = []
        for tag in tags_of(repo, name):
            record = read_record(repo, tag, name) or {}
            commit, _, message = git(repo, "log", "-1", "--format=%H %s", tag).partition(" ")
            found.append(Revision(tag, commit, record["dataset_sha256"], record["rows"], message))
        return found

    def local(self) -> Path:
        """Folder of the registry. Raises RegistryError where it is a URL, or no registry."""
        if is_url(str(self.path)):
            raise RegistryError(f"registry {clean(str(self.path))} is a URL", "clone it with git and name the clone")
        repo = Path(self.path)
        if not (repo / ".git").exists():
            raise RegistryError(
                f"{repo} is not a dataset registry", "make one with `ifas data init`, or correct the path"
            )
        return repo

    def _config(self, clone_or_repo: Path) -> DvcConfig:
        """The registry's DVC configuration as it is now, local settings that git does not hold included."""
        if is_url(str(self.path)):
            return DvcConfig(git(clone_or_repo, "show", f"HEAD:{CONFIG}"), clone_or_repo / ".dvc")
        file = Path(self.path) / CONFIG
        if not file.is_file():
            raise RegistryError(f"{self.path} is a git repository without DVC", "make a registry with `ifas data init`")
        local = file.with_name("config.local")
        overlay = local.read_text(encoding="utf-8") if local.is_file() else ""
        return DvcConfig(file.read_text(encoding="utf-8"), file.parent.resolve(), overlay)


@dataclass(frozen=True)
class _Checkout:
    """A dataset at a revision, in a clone of the registry."""

    repo: Path
    name: str
    commit: str
    url: str
    record: dict[str, Any]

    @property
    def called(self) -> str:
        """What an error calls the dataset."""
        return f"{self.name} at {self.commit[:10]} from remote {clean(self.url)}"

    def get(self, wanted: Mapping[str, Path]) -> None:
        """Brings the dataset folder ("") or files of it ("/name") from the remote, each to its place here."""
        place = f"{FOLDER}/{self.name}"
        try:
            dvc(self.repo, *(("get", str(self.repo), place + path, "-o", str(out)) for path, out in wanted.items()))
        except DvcFailed as error:
            raise explain(error, f"fetching {self.name} at {self.commit[:10]}", self.url) from error


def _in_remote(repo: Path, name: str, url: str) -> bool:
    """Whether a published dataset is known to be in the remote. It was when it was committed; it may be lost since."""
    pointer = repo / FOLDER / f"{name}.dvc"
    if is_url(url):
        return False
    if held(Path(url), pointer):
        return True
    forget(Path(url), pointer)
    return False


def _check_checkout(place: Path, dataset_dir: Path) -> None:
    """Publishing replaces the registry's checkout of a dataset: nothing else may be lost with it."""
    if overlap(place.resolve(), dataset_dir.resolve()):
        raise RegistryError(
            f"{dataset_dir} lies where the registry keeps its own copy, {place}", "move it out of the registry"
        )
    check_own(place)  # a publication that was killed leaves part of a dataset


def _upload(repo: Path, dataset_dir: Path, name: str, url: str) -> None:
    target = f"{FOLDER}/{name}"
    (repo / FOLDER).mkdir(exist_ok=True)
    # A checkout of the last version is linked to the cache and read-only: replaced, never written into.
    remove(repo / target)
    try:
        dvc(repo, ("add", "-q", "-f", str(dataset_dir.resolve()), "-o", target), ("push", f"{target}.dvc"))
    except DvcFailed as error:
        raise explain(error, f"publishing {name}", url) from error


RESTORE = "restore the object in the remote from a backup, or delete it there and publish the dataset again"


def _check_fetched(folder: Path, record: dict[str, Any], called: str) -> None:
    try:
        found = sha256_file(folder / DATASET_FILE) if (folder / DATASET_FILE).is_file() else "no such file"
        if found != record["dataset_sha256"]:
            raise CorruptShardError(f"{DATASET_FILE} of {called}: expected {record['dataset_sha256']}, found {found}")
        verify(folder, called=called)
    except CorruptShardError as error:
        raise CorruptShardError(error.what, RESTORE) from error


def _check_folder(url: str) -> None:
    """A remote folder that is gone must not be made anew: earlier revisions would be lost without a word."""
    if not is_url(url) and not Path(url).is_dir():
        raise RegistryError(
            f"the registry's remote {url} is not there",
            "mount or restore that folder, or set another one: `ifas data init --remote`",
        )


def _lock_file(repo: Path) -> Path:
    return Path(git(repo, "rev-parse", "--absolute-git-dir")) / "ifas-publish.lock"
