"""What lies in a Bento's source folder: written down when it is packaged, checked before it answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from ifas.core.errors import ConfigError, GateError
from ifas.core.files import read_json, sha256_file, write_json

CONTENTS_FILE = "contents.json"


def write_contents(folder: Path) -> None:
    """Writes `contents.json`: path -> SHA-256 of every other file in the folder."""
    write_json(folder / CONTENTS_FILE, {name: sha256_file(folder / name) for name in _names(folder)})


def check_contents(folder: Path) -> dict[str, str]:
    """What `contents.json` says, if the folder holds just that. Compiled Python (`__pycache__`) does not count.

    It finds slips and careless edits. Who rewrites `contents.json`, this very code or compiled Python beside it is not
    found out from inside.

    Raises:
        GateError: a file was changed, added or removed since the Bento was packaged; it is named.
        ConfigError: there is no `contents.json`, or it is damaged.
    """
    file = folder / CONTENTS_FILE
    try:
        said: dict[str, str] = {str(name): str(sha256) for name, sha256 in dict(read_json(file)).items()}
    except (FileNotFoundError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{file} is missing or damaged: {error}", "serve a Bento that `ifas package` built, whole"
        ) from error
    there = set(_names(folder))
    for name in sorted(there | set(said)):
        if name not in there:
            what = "is missing"
        elif name not in said:
            what = "was added"
        elif sha256_file(folder / name) != said[name]:
            what = "was changed"
        else:
            continue
        raise GateError(f"{name} {what} since this Bento was packaged", "package the candidate again")
    return said


def digest_below(contents: Mapping[str, str], folder: str) -> str:
    """What `sha256_tree` gives for a folder that holds just the contents below it."""
    digest = hashlib.sha256()
    for name in sorted(contents, key=lambda name: Path(name).parts):
        if name.startswith(f"{folder}/"):
            digest.update(f"{name.removeprefix(f'{folder}/')}\0{contents[name]}\n".encode())
    return digest.hexdigest()


def _names(folder: Path) -> Iterator[str]:
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        # A link to a folder counts as a file: Python would import from it.
        if file.is_dir() and not file.is_symlink():
            continue
        if "__pycache__" not in name.parts and name.as_posix() != CONTENTS_FILE:
            yield name.as_posix()
