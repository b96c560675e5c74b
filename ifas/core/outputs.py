"""Outputs at a place that the user named. What ifas did not make there is never replaced: it is refused by name.

What ifas writes is recorded below its home under the output's absolute path: every entry with its size and time of
change. An output is replaced only if each entry in it is as recorded. A marker inside the output would change its hash.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ifas.core.errors import DataError, MachineError
from ifas.core.files import read_json, remove, replacing, sha256_json, write_json
from ifas.core.home import home

FOLDER = "outputs"
#: What Python leaves where it runs code, such as that of a served Bento: nobody misses it.
COMPILED = "__pycache__"
#: Entries that an error names.
NAMED = 3


@contextmanager
def producing(target: Path) -> Iterator[Path]:
    """`replacing` for a path that the user named: checks, before and after the work, that ifas made what is there.

    An empty file or folder may be replaced, too. On an error `target` is as it was.

    Raises:
        DataError: `target` holds something that ifas did not make or that was changed since, is a symbolic link, the
            current folder, a home or a folder above one of these.
        MachineError: `target` can't be written.
    """
    require_ours(target)
    place = _place(target)
    with ExitStack() as stack:
        try:
            beside = stack.enter_context(replacing(place))
        except OSError as error:
            raise MachineError(f"{target} can't be written: {error.strerror}", "name another place") from error
        yield beside
        require_ours(target)
        _record(place, _contents(beside))


def require_ours(target: Path) -> None:
    """Raises DataError, as `producing` does, where `target` must not be replaced."""
    place = _place(target)
    user = Path(os.path.realpath(os.path.expanduser("~")))
    for what, folder in (("current folder", Path.cwd()), ("home", user), ("ifas home", home().resolve())):
        if place in (folder, *folder.parents):
            raise DataError(f"{target} can't be an output: it holds the {what}", "name a new folder")
    if place.is_symlink():
        raise DataError(f"{target} is a symbolic link to {os.readlink(place)}", "name the place itself")
    if place.exists() and not place.is_file() and not place.is_dir():
        raise DataError(f"{target} is neither a file nor a folder", "name another place")
    foreign = _foreign(place)
    if foreign:
        named = ", ".join(foreign[:NAMED]) + (f" and {len(foreign) - NAMED} more" if len(foreign) > NAMED else "")
        raise DataError(
            f"{target} is not replaced: not made by ifas, or changed since: {named}",
            "name another place, or move these files away",
        )


def discard(target: Path) -> None:
    """Removes an output that ifas made; raises DataError where it is something else."""
    require_ours(target)
    remove(target)


def overlap(one: Path, other: Path) -> bool:
    """Whether two paths are the same or one lies in the other."""
    a, b = _place(one), _place(other)
    return a == b or a in b.parents or b in a.parents


def _place(target: Path) -> Path:
    """Absolute, without links in the folders above; `target` itself may be a link."""
    if target.name in ("", ".."):
        return Path(os.path.realpath(target))
    return Path(os.path.realpath(target.parent)) / target.name


def _foreign(place: Path) -> list[str]:
    """Entries that are not as recorded, sorted; none for an empty file or folder, or where there is nothing."""
    if place.is_file() and not place.stat().st_size:
        return []
    found = _contents(place)
    made = _made(place)
    return sorted(name for name, seen in found.items() if not any(one.get(name) == seen for one in made))


def _contents(path: Path) -> dict[str, str]:
    """Each entry below a folder, or the file itself by its name -> its kind, size and time of change."""
    if not path.is_dir():
        return {path.name: _entry(path)} if path.exists() else {}
    found = {}
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if name != COMPILED]
        for name in (*folders, *files):
            entry = Path(folder, name)
            found[entry.relative_to(path).as_posix()] = _entry(entry)
    return found


def _entry(path: Path) -> str:
    if path.is_symlink():
        return f"link to {os.readlink(path)}"
    if path.is_dir():
        return "folder"
    seen = path.stat()
    return f"{seen.st_size} bytes, {seen.st_mtime_ns} ns"


def _made(place: Path) -> list[dict[str, str]]:
    try:
        made: list[dict[str, str]] = read_json(_file(place))["made"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return made


def _record(place: Path, contents: dict[str, str]) -> None:
    # A kill before the rename leaves the previous output in place, so its record is kept as well.
    write_json(_file(place), {"path": str(place), "made": [contents, _contents(place)]})


def _file(place: Path) -> Path:
    return home() / FOLDER / f"{sha256_json(str(place))[:32]}.json"
