"""The git side of the registry: which revisions of a dataset there are, and how one is added.

datasets/<name>.json    name, rows, SHA-256 of dataset.json, counts: a change of data is a diff in git
datasets/<name>.dvc     what DVC needs to find the files
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ifas.core.errors import RegistryError
from ifas.core.files import remove, sha256_file, write_json
from ifas.core.manifest import DATASET_FILE
from ifas.data.dataset import check_name
from ifas.data.dvc_repo import git, git_ok

FOLDER = "datasets"
#: How many known revisions the error about an unknown one lists.
LISTED = 10


def record_of(dataset_dir: Path) -> dict[str, Any]:
    """What git says about a dataset."""
    index = json.loads((dataset_dir / DATASET_FILE).read_text(encoding="utf-8"))
    kept = ("name", "description", "synthetic", "licences", "rows", "subjects", "counts", "batches")
    return {
        "dataset_sha256": sha256_file(dataset_dir / DATASET_FILE),
        **{key: index[key] for key in kept if key in index},
    }


def read_record(repo: Path, revision: str, name: str) -> dict[str, Any] | None:
    """What git says about a dataset at a revision; None where there is no such dataset."""
    place = f"{revision}:{FOLDER}/{name}.json"
    if not git_ok(repo, "cat-file", "-e", place):
        return None
    record: dict[str, Any] = json.loads(git(repo, "show", place))
    return record


def resolve(repo: Path, name: str, revision: str) -> str:
    """The commit that published what `name` holds at a revision. Raises RegistryError listing the known ones."""
    check_name(name)
    alias = revision.removeprefix(f"{name}@")
    for candidate in (revision, f"{name}/{alias}", f"origin/{revision}"):
        if git_ok(repo, "rev-parse", "-q", "--verify", "--end-of-options", f"{candidate}^{{commit}}"):
            require(repo, candidate, name)
            return last_change(repo, candidate, name)
    known = tags_of(repo, name)[:LISTED] or git(repo, "tag", "--sort=-creatordate").splitlines()[:LISTED]
    raise RegistryError(
        f"registry has no revision {revision!r} of dataset {name}",
        f"newest known: {', '.join(known)}" if known else "publish a dataset first: `ifas data publish`",
    )


def require(repo: Path, revision: str, name: str) -> None:
    """Raises RegistryError listing the known datasets unless there is this one."""
    check_name(name)
    if read_record(repo, revision, name) is None:
        files = git(repo, "ls-tree", "--name-only", revision, f"{FOLDER}/").splitlines()
        known = [Path(f).stem for f in files if f.endswith(".json")]
        raise RegistryError(
            f"registry has no dataset {name!r} at {revision}",
            f"known there: {', '.join(known)}" if known else "publish one first: `ifas data publish`",
        )


def last_change(repo: Path, revision: str, name: str) -> str:
    """The last commit up to a revision that changed the dataset."""
    return git(repo, "log", "-1", "--format=%H", revision, "--", f"{FOLDER}/{name}.json")


def before(repo: Path, name: str, revision: str) -> str | None:
    """The commit that published the version before the one at a revision. Raises RegistryError."""
    commit = resolve(repo, name, revision)
    older = git(repo, "log", "-2", "--format=%H", commit, "--", f"{FOLDER}/{name}.json").splitlines()[1:]
    return older[0] if older else None


def tags_of(repo: Path, name: str) -> list[str]:
    """Version tags of a dataset, newest first."""
    found = git(repo, "tag", "--list", f"{name}/v*").splitlines()
    return sorted(
        (t for t in found if t.rpartition("/v")[2].isdigit()), key=lambda t: int(t.rpartition("/v")[2]), reverse=True
    )


def tag_of(repo: Path, name: str, revision: str) -> str:
    """The version tag of a commit, made if it has none."""
    there = git(repo, "tag", "--points-at", revision, "--list", f"{name}/v*")
    if there:
        return there.splitlines()[0]
    newest = max((int(tag.rpartition("/v")[2]) for tag in tags_of(repo, name)), default=0)
    tag = f"{name}/v{newest + 1}"
    git(repo, "tag", tag, revision)
    return tag


def commit_record(repo: Path, name: str, record: dict[str, Any], message: str) -> None:
    """Commits the dataset's files, and no others."""
    write_json(repo / FOLDER / f"{name}.json", record)
    paths = _paths(name)
    git(repo, "add", "--", *paths)
    git(repo, "commit", "-q", "-m", message, "--only", "--", *paths)


def undo(repo: Path, name: str) -> None:
    """Puts a dataset's files back to the last commit: what an unfinished publication left.

    Raises:
        RegistryError: a file that git does not know was not made by a publication; nothing was changed.
    """
    for path in _paths(name):
        if (
            (repo / path).exists()
            and not _published(repo / path)
            and not git_ok(repo, "cat-file", "-e", f"HEAD:{path}")
        ):
            raise RegistryError(f"{repo / path} was not made by ifas", "move it away: the registry needs its place")
    for path in _paths(name):
        if git_ok(repo, "cat-file", "-e", f"HEAD:{path}"):
            git(repo, "checkout", "-q", "HEAD", "--", path)
        else:
            git(repo, "rm", "-q", "--cached", "--ignore-unmatch", "--", path)
            remove(repo / path)


def _published(file: Path) -> bool:
    """Whether a publication may have left this file: whole records, and the rules by which DVC hides its checkouts."""
    if file.suffix == ".dvc":
        return True
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            return "dataset_sha256" in json.loads(text)
    except (OSError, ValueError, TypeError):
        return False
    return all(line.startswith("/") for line in text.splitlines())


def _paths(name: str) -> list[str]:
    return [f"{FOLDER}/{name}.json", f"{FOLDER}/{name}.dvc", f"{FOLDER}/.gitignore"]
