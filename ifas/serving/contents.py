"""What lies in a Bento's source folder: written down when it is packaged, checked before it answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ifas.core.errors import ConfigError, GateError
from ifas.core.files import first_difference, listing, read_json, sha256_file, sha256_listing, write_json

CONTENTS_FILE = "contents.json"


def write_contents(folder: Path) -> None:
    """Writes `contents.json`: path -> SHA-256 of every other file in the folder."""
    write_json(folder / CONTENTS_FILE, {name: sha256_file(file) for name, file in _files(folder).items()})


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
    if what := first_difference(_files(folder), said):
        raise GateError(f"{what} since this Bento was packaged", "package the candidate again")
    return said


def digest_below(contents: Mapping[str, str], folder: str) -> str:
    """What `sha256_tree` gives for a folder that holds just the contents below it."""
    below = f"{folder}/"
    return sha256_listing({n.removeprefix(below): sha256 for n, sha256 in contents.items() if n.startswith(below)})


def _files(folder: Path) -> dict[str, Path]:
    return {
        name: file
        for name, file in listing(folder).items()
        if "__pycache__" not in name.split("/") and name != CONTENTS_FILE
    }
