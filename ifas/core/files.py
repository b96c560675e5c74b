"""Hashing, locking, and writing files so that a killed process leaves nothing half-written at its target."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ifas.core.errors import DamagedFile, MachineError

#: Error numbers of a rename when the target exists and can't be replaced in one step.
_IN_THE_WAY = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sha256_tree(path: Path) -> str:
    """Hex SHA-256 over a file, or over the sorted (relative path, content) pairs of a folder."""
    if path.is_file():
        return sha256_file(path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return sha256_listing({file.relative_to(path).as_posix(): sha256_file(file) for file in files})


def sha256_listing(files: Mapping[str, str]) -> str:
    """What `sha256_tree` gives for a folder with these files: relative path -> SHA-256."""
    digest = hashlib.sha256()
    for name in sorted(files, key=lambda name: name.split("/")):
        digest.update(f"{name}\0{files[name]}\n".encode())
    return digest.hexdigest()


def listing(folder: Path) -> dict[str, Path]:
    """Every file below a folder, by its relative path. A link to a folder counts as a file, and is not followed."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix(): path for path in found}


def first_difference(there: Mapping[str, Path], said: Mapping[str, str]) -> str:
    """The first file that is not as it should be, and what became of it, such as "a.py was added"; empty if none.

    Args:
        there: name -> file. A link is another file than what was there before.
        said: name -> SHA-256 that it should have.
    """
    for name in sorted({*there, *said}):
        if name not in there:
            return f"{name} is missing"
        if name not in said:
            return f"{name} was added"
        if there[name].is_symlink() or sha256_file(there[name]) != said[name]:
            return f"{name} was changed"
    return ""


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of `value` (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@contextmanager
def locked(file: Path, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds an exclusive lock on `file` (created if missing); waits while another process holds it.

    The kernel releases the lock when the process ends, however it ends. The file stays.

    Args:
        waiting: called once before a wait, with the local time since when the lock is held ("" where it is not known).

    Raises:
        MachineError: the file can't be locked.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _no_lock(file, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting(os.pread(descriptor, 64, 0).decode("ascii", "replace").strip())
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise _no_lock(file, error) from error
        with suppress(OSError):  # on a full disk, only the time of the lock is missing
            os.pwrite(descriptor, f"{datetime.now():%Y-%m-%d %H:%M:%S}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _no_lock(file: Path, error: OSError) -> MachineError:
    return MachineError(f"{file} can't be locked: {error.strerror}", "set IFAS_HOME to a folder on a local disk")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields a fresh path to write a file or a folder to; it becomes `target` on success.

    The path lies in a scratch folder beside `target`. On an error that folder is removed and `target` is as it was.
    A killed process leaves it behind, and the next call for the same `target` removes it. A file is replaced in one
    step. A folder is moved away first: a kill at that moment leaves no `target`, and the next call brings the old one
    back.

    Raises:
        MachineError: `target` is a mount point, which can't be replaced: better said now than after the work.
    """
    if os.path.ismount(target):
        raise MachineError(f"{target} is a mount point, it can't be replaced", "name a folder in it")
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    scratch, lock = _scratch(target)
    try:
        yield scratch / target.name
        _swap(scratch / target.name, target, _old(scratch, target))
    finally:
        remove(scratch)
        os.close(lock)


def _scratch(target: Path) -> tuple[Path, int]:
    """A new folder beside `target`, and its lock, which says that the process that made it is alive."""
    while True:
        scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        scratch.mkdir()
        # Another process's `_sweep` may remove the folder before it is locked.
        with suppress(FileNotFoundError):
            lock = os.open(scratch, os.O_RDONLY)
            with suppress(OSError):  # on a file system without locks, nothing is swept
                fcntl.flock(lock, fcntl.LOCK_EX)
            if scratch.exists():
                return scratch, lock
            os.close(lock)


def _old(scratch: Path, target: Path) -> Path:
    return scratch / f"{target.name}.old"


def _swap(beside: Path, target: Path, old: Path) -> None:
    try:
        while True:
            try:
                os.replace(beside, target)
                return
            except OSError as error:
                if error.errno not in _IN_THE_WAY:
                    raise
            remove(old)
            with suppress(FileNotFoundError):  # another process is replacing it, too: the last one wins
                os.rename(target, old)
    except BaseException:
        _bring_back(old, target)
        raise


def _bring_back(old: Path, target: Path) -> None:
    if os.path.lexists(old) and not os.path.lexists(target):
        os.rename(old, target)


def _sweep(target: Path) -> None:
    """Removes what killed processes left beside `target`."""
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.part")
    with suppress(OSError):  # leftovers must not fail this call
        for entry in [e for e in os.scandir(target.parent) if name.fullmatch(e.name) and e.is_dir()]:
            scratch = target.with_name(entry.name)
            lock = os.open(scratch, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _bring_back(_old(scratch, target), target)
                shutil.rmtree(scratch)
            except OSError:
                continue  # the process that made it is alive
            finally:
                os.close(lock)


def check_writable(folder: Path) -> None:
    """Raises OSError unless a file can be made in a folder, or in the nearest one above it that is there."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    with tempfile.TemporaryFile(dir=place):
        pass


def remove(path: Path) -> None:
    """Removes a file or a folder; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link_tree(source: Path, target: Path) -> None:
    """Copies a file or folder by hard links where the file system allows; nobody writes to such files in place."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(str(source), str(target))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    with replacing(path) as beside:
        beside.write_text(json.dumps(value, indent=2, sort_keys=False, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The JSON in `path`. Raises DamagedFile if it is not JSON, and OSError if it can't be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedFile(f"{path} is not JSON: {error}", "make it again with the step that wrote it") from error
