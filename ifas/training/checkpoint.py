"""Checkpoints: written by all ranks together, whole or not at all, and never onto a full disk unawares."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import distributed as dist

from ifas.core.errors import TrainingError
from ifas.core.files import read_json, remove, write_json
from ifas.training.engine import Engine

PROGRESS_FILE = "progress.json"
#: What the operating system says when nothing more can be written: disk, quota, or a limit on file sizes.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: torch's zip writer does not pass the system's error on, it complains about its own file.
WRITER_FAILED = ("PytorchStreamWriter failed", "inline_container", "file write failed")

FreeBytes = Callable[[Path], int]


def free_bytes(folder: Path) -> int:
    """Bytes free on the disk of `folder`."""
    return shutil.disk_usage(folder).free


def no_space(folder: Path, needed: int, free: int) -> TrainingError:
    """The error for a disk that is too full."""
    return TrainingError(
        f"no space for the checkpoint in {folder}: it needs about {needed / 2**20:.1f} MiB, "
        f"{free / 2**20:.1f} MiB are free",
        "free some space there, or put the run on another disk; the same command then goes on from the last checkpoint",
    )


def require_space(folder: Path, needed: int, free: FreeBytes = free_bytes) -> None:
    """Raises TrainingError if the disk of `folder` has not `needed` bytes left."""
    left = free(folder)
    if left < needed:
        raise no_space(folder, needed, left)


@contextmanager
def written_by_all(target: Path, needed: int, free: FreeBytes = free_bytes) -> Iterator[Path]:
    """A folder that every rank writes into, renamed to `target` by rank 0 once all are done.

    All ranks enter and leave together. `target` has to lie on storage that all of them share.

    Args:
        target: must not be half-written by anything else; an old one is replaced.
        needed: bytes that all ranks together will write.
        free: bytes left on a disk.

    Raises:
        TrainingError: no space; the unfinished folder is removed.
    """
    beside = target.with_name(f".{target.name}.part")
    first = dist.get_rank() == 0
    if first:
        require_space(target.parent, needed, free)
        remove(beside)
        beside.mkdir(parents=True)
    dist.barrier()
    try:
        yield beside
    except (OSError, RuntimeError) as error:
        remove(beside)
        if _full(error):
            raise no_space(target.parent, needed, free(target.parent)) from error
        raise
    dist.barrier()
    if first:
        remove(target)
        beside.rename(target)
    dist.barrier()


def save(engine: Engine, run: Path, step: int, free: FreeBytes = free_bytes) -> Path:
    """Saves the state after `step` steps, from all ranks; returns the checkpoint's folder.

    Raises:
        TrainingError: no space.
    """
    target = run / f"checkpoint_{step:08d}"
    with written_by_all(target, engine.checkpoint_bytes(), free) as folder:
        engine.save(folder)
        if dist.get_rank() == 0:
            write_json(folder / PROGRESS_FILE, {"step": step, "workers": dist.get_world_size()})
    return target


def restore(engine: Engine, folder: Path) -> int:
    """Puts the state of a checkpoint into the engine; returns the number of steps done.

    Raises:
        TrainingError: it was written by another number of workers.
    """
    state = read_json(folder / PROGRESS_FILE)
    if state["workers"] != dist.get_world_size():
        raise TrainingError(
            f"checkpoint {folder} was written by {state['workers']} workers, now there are {dist.get_world_size()}",
            f"set train.workers={state['workers']} to resume, or remove the checkpoint to begin anew",
        )
    engine.restore(folder)
    return int(state["step"])


def _full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return True
    return any(text in str(error) for text in WRITER_FAILED)
