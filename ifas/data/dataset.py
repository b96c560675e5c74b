"""The index of a dataset folder, `dataset.json`, and the check of everything that it vouches for."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from ifas.core.errors import CorruptShardError, DataError
from ifas.core.files import read_json, sha256_file
from ifas.core.manifest import DATASET_FILE, MANIFEST_FILE, SHARDS_DIR
from ifas.data.tables import contents_sha256

#: 1 vouched for shards by the hash of the file; 2 does so by `ids_sha256`.
FORMAT = 2
REFETCH = "fetch this dataset revision again (`ifas step ingest`), or pack it again from the raw images"

_SHARD = re.compile(rf"{SHARDS_DIR}/[^/]+\.parquet")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")


def check_name(name: str) -> None:
    """Raises DataError unless `name` can be a folder, a git tag and a column value."""
    if not _NAME.fullmatch(name) or name.endswith((".lock", ".dvc", ".json")):
        raise DataError(f"dataset name {name!r} is not usable", "use letters, digits, - and _, such as celeba-spoof")


def read_index(folder: Path) -> dict[str, Any]:
    """`dataset.json` of a dataset folder.

    Raises:
        DataError: there is none, it is not JSON, it lacks a name, hash or number of rows, or it is of a later format.
    """
    file = folder / DATASET_FILE
    if not file.is_file():
        raise DataError(f"{folder} is not a dataset folder: it has no {DATASET_FILE}", "make one with `ifas data pack`")
    try:
        index = read_json(file)
        known = index["format"] <= FORMAT
        if known:
            shards = index["shards"].values()
            texts = [index["name"], index["manifest_sha256"], *map(shard_hash, shards)]
            if not (all(isinstance(t, str) and t for t in texts) and all(isinstance(s["rows"], int) for s in shards)):
                raise ValueError("a name, a hash or a number of rows is not one")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptShardError(f"{file} can't be read: {error!r}", REFETCH) from error
    if not known:
        raise DataError(f"{file} is of format {index['format']}, this ifas reads up to {FORMAT}", "update ifas")
    checked: dict[str, Any] = index
    return checked


def verify(dataset_dir: Path, *, called: str = "") -> dict[str, Any]:
    """Checks the hash of the manifest and of every image; returns the index.

    Args:
        called: what an error calls the folder, when its path says nothing to the user.

    Raises:
        CorruptShardError: names the file, and the row or the expected and the found hash.
        DataError: the folder has no index.
    """
    index = read_index(dataset_dir)
    where = called or str(dataset_dir)
    check_hash(dataset_dir / MANIFEST_FILE, index["manifest_sha256"], f"{MANIFEST_FILE} of {where}")
    for name, shard in index["shards"].items():
        check_shard(dataset_dir / SHARDS_DIR / name, shard, f"shard {name} of {where}")
    return index


def check_replaceable(out: Path) -> None:
    """Raises DataError unless `out` is not there, is empty, or is a dataset folder as it was packed and nothing else.

    Images in it are not looked at.
    """
    if out.is_symlink():
        raise DataError(f"{out} is a symbolic link to {out.readlink()}", "name the place itself")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    elsewhere = "name a new folder, or remove this one"
    try:
        index = read_index(out)
        shards, manifest = index["shards"], index["manifest_sha256"]
    except (DataError, KeyError) as error:
        raise DataError(f"{out} exists and is not a dataset folder", elsewhere) from error
    check_own(out, {f"{SHARDS_DIR}/{name}" for name in shards})
    if (out / MANIFEST_FILE).is_file() and sha256_file(out / MANIFEST_FILE) != manifest:
        raise DataError(f"{out}: {MANIFEST_FILE} was changed since the dataset was made", elsewhere)


def check_own(folder: Path, shards: Container[str] | None = None) -> None:
    """Raises DataError where a folder holds a file that is no part of a dataset.

    Args:
        shards: those that belong to it; None: any that has the name of one, and what DVC leaves when it is killed.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        shard = _SHARD.fullmatch(name) or name.endswith(".tmp") if shards is None else name in shards
        if not path.is_dir() and not (shard or name in (DATASET_FILE, MANIFEST_FILE)):
            raise DataError(
                f"{folder} holds {name}, which is not part of a dataset", "move it away, or name a new folder"
            )


def class_counts(classes: Mapping[tuple[str, str, str], int]) -> dict[str, dict[str, dict[str, int]]]:
    """Images by domain, split and spoof type, as the index holds them; from counts by (domain, split, spoof type)."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for (domain, split, kind), n in sorted(classes.items()):
        counts.setdefault(domain, {}).setdefault(split, {})[kind] = n
    return counts


def shard_hash(shard: dict[str, Any]) -> str:
    """What stands for the contents of a shard, as the index lists it."""
    found: str = shard.get("ids_sha256") or shard["sha256"]
    return found


def check_shard(file: Path, shard: dict[str, Any], called: str) -> None:
    """Raises CorruptShardError when a shard is missing or an image in it is not the one that was packed."""
    if "ids_sha256" not in shard:
        check_hash(file, shard["sha256"], called)
        return
    if not file.is_file():
        raise CorruptShardError(f"{called} is missing", REFETCH)
    try:
        found = contents_sha256(file)
    except ValueError as error:
        raise CorruptShardError(f"{called} is corrupt: {error}", REFETCH) from error
    if found != shard["ids_sha256"]:
        expected = shard["ids_sha256"]
        raise CorruptShardError(f"{called} holds other images: expected hash of ids {expected}, found {found}", REFETCH)


def check_hash(file: Path, expected: str, called: str) -> None:
    """Raises CorruptShardError when a file is missing or its SHA-256 is another one."""
    if not file.is_file():
        raise CorruptShardError(f"{called} is missing (expected SHA-256 {expected})", REFETCH)
    found = sha256_file(file)
    if found != expected:
        raise CorruptShardError(f"{called} is corrupt: expected SHA-256 {expected}, found {found}", REFETCH)
