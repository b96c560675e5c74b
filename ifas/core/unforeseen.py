"""Turns errors of the machine and of libraries that no other code has handled into errors of ifas."""

from __future__ import annotations

import errno
import json

from pydantic import ValidationError

from ifas.core.config import first_problem
from ifas.core.errors import ConfigError, DataError, IfasError, MachineError

_RIGHTS = "change its owner or rights, or name another place; IFAS_HOME says where ifas keeps its own files"
_PLACE = "check the path"
_AGAIN = "make it again with the step or command that wrote it"
_SPACE = "free disk space, then run the same command again"

#: errno -> (what is wrong with the path, how to go on).
_MACHINE: dict[int, tuple[str, str]] = {
    errno.ENOENT: ("does not exist", _PLACE),
    errno.ENOTDIR: ("leads through a file, a folder is needed there", _PLACE),
    errno.EISDIR: ("is a folder, a file is needed", _PLACE),
    errno.EEXIST: ("exists already", "name another place, or move it away"),
    errno.ENOTEMPTY: ("is a folder that holds something", "name another place, or move it away"),
    errno.ENAMETOOLONG: ("has too long a name", "name a shorter path"),
    errno.EACCES: ("can't be used: permission denied", _RIGHTS),
    errno.EPERM: ("can't be used: permission denied", _RIGHTS),
    errno.EROFS: ("is on a read-only disk", _RIGHTS),
    errno.ENOSPC: ("can't be written: no space is left on the disk", _SPACE),
    errno.EDQUOT: ("can't be written: the disk quota is used up", _SPACE),
}

#: Library -> what its errors are about.
_LIBRARIES: dict[str, tuple[type[IfasError], str, str]] = {
    "yaml": (ConfigError, "a YAML file can't be read", "correct it"),
    "sqlalchemy": (ConfigError, "the ledger can't be used", "set gate.ledger (or IFAS_LEDGER) to one that is there"),
    "pyarrow": (DataError, "a Parquet file can't be read", "make it again with the step that wrote it"),
    "safetensors": (DataError, "a file of weights can't be read", "make it again with the step that wrote it"),
}


def named(error: BaseException) -> IfasError | None:
    """The error as one that a user can act on; None where it can only be a bug of ifas."""
    if isinstance(error, IfasError):
        return error
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return MachineError(f"memory ran out: {_line(error)}", "lower the batch or the workers")
    # Nobody names an empty path: that is a mistake of ifas.
    if isinstance(error, OSError) and error.filename != "":
        return _of_machine(error)
    if isinstance(error, ValidationError):
        return DataError(f"a record is damaged: {error.title}: {first_problem(error)}", _AGAIN)
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return DataError(f"a file is damaged: {_line(error)}", _AGAIN)
    for cls in type(error).__mro__:
        kind, what, fix = _LIBRARIES.get(cls.__module__.partition(".")[0], (None, "", ""))
        if kind is not None:
            return kind(f"{what}: {_line(error)}", fix)
    return None


def _of_machine(error: OSError) -> MachineError:
    path = error.filename2 or error.filename
    what, fix = _MACHINE.get(error.errno or 0, ("", ""))
    if what and path is not None:
        return MachineError(f"{_text(path)} {what}", fix)
    if what:
        return MachineError(f"a file or folder {what}: {_line(error)}", fix)
    where = f"{_text(path)}: " if path is not None else ""
    return MachineError(f"{where}{error.strerror or _line(error)}", "check that path, server or disk, then run again")


def _text(path: object) -> str:
    return path.decode(errors="replace") if isinstance(path, bytes) else str(path)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
