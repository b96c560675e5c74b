"""Checkpoints: written by all ranks together, whole or not at all; free disk space is checked first.

    checkpoint_00000050/state/      DeepSpeed's files, of all ranks
    checkpoint_00000050/progress.json

They lie in the run's folder, which all ranks share, or below `train.storage`, which needs no shared disk: each rank
then uploads its own files, and rank 0 uploads progress.json after all of them. A folder without it is not a checkpoint.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from torch import distributed as dist

from ifas.core import storage
from ifas.core.errors import TrainingNeedsSpace
from ifas.core.files import read_json, remove, write_json
from ifas.training.engine import TAG, Engine
from ifas.training.universal import UNIVERSAL, convert

PREFIX = "checkpoint_"
PROGRESS_FILE = "progress.json"
#: What the operating system says when nothing more can be written: disk, quota, or a limit on file sizes.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Texts of torch's zip writer, which does not pass on the system's error.
WRITER_FAILED = ("PytorchStreamWriter failed", "inline_container", "file write failed")

FreeBytes = Callable[[Path], int]


def free_bytes(folder: Path) -> int:
    """Bytes free on the disk of `folder`."""
    return shutil.disk_usage(folder).free


def no_space(folder: Path, needed: int, free: int) -> TrainingNeedsSpace:
    """The error for a disk that is too full."""
    return TrainingNeedsSpace(
        f"no space for the checkpoint in {folder}: it needs about {needed / 2**20:.1f} MiB, "
        f"{free / 2**20:.1f} MiB are free",
        "free some space there, or put the run on another disk; the same command then goes on from the last checkpoint",
    )


def require_space(folder: Path, needed: int, free: FreeBytes = free_bytes) -> None:
    """Raises TrainingNeedsSpace if the disk of `folder` has not `needed` bytes left."""
    left = free(folder)
    if left < needed:
        raise no_space(folder, needed, left)


@contextmanager
def written_by_all(target: Path, needed: int, free: FreeBytes = free_bytes) -> Iterator[Path]:
    """A folder that every rank writes into, renamed to `target` by rank 0 once all are done.

    All ranks enter and leave together. `target` has to lie on storage that all of them share.

    Args:
        target: an old one is replaced; nothing else may write to it meanwhile.
        needed: bytes that all ranks together will write.
        free: bytes left on a disk.

    Raises:
        TrainingNeedsSpace: no space; the unfinished folder is removed.
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
    except (OSError, RuntimeError, SafetensorError) as error:
        remove(beside)
        if _full(error):
            raise no_space(target.parent, needed, free(target.parent)) from error
        raise
    dist.barrier()
    if first:
        remove(target)
        beside.rename(target)
    dist.barrier()


@dataclass(frozen=True)
class Found:
    """A checkpoint on this machine's disk.

    Attributes:
        universal: it is to be read in the form that fits any number of ranks.
        skipped: batches left out so far.
    """

    folder: Path
    step: int
    universal: bool
    skipped: int


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run. Every method is called by all ranks together.

    Attributes:
        run: the run's folder; with `uri` it need not be shared between machines.
        uri: where checkpoints go instead, any fsspec URI; empty: into `run`.
        keep: newest ones that are kept.
        free: bytes left on a disk.
    """

    run: Path
    uri: str = ""
    keep: int = 2
    free: FreeBytes = free_bytes

    def save(self, engine: Engine, step: int, *, skipped: int = 0) -> Path:
        """Saves the state after `step` steps and removes old checkpoints; returns its local folder (which is gone
        where it was uploaded).

        Raises:
            TrainingNeedsSpace: no space.
            DataError: the store can't be reached.
        """
        name = f"{PREFIX}{step:08d}"
        target = self.run / name
        progress = {
            "step": step,
            "workers": dist.get_world_size(),
            "zero_stage": engine.config.zero_stage,
            "skipped": skipped,
        }
        first = dist.get_rank() == 0
        if self.uri:
            # A folder per rank: ranks of one machine must not upload each other's half-written files.
            with written_by_one(target.with_name(f".{name}.{dist.get_rank()}"), engine, self.free) as folder:
                storage.store(folder, f"{self.uri}/{name}")
                dist.barrier()
                if first:
                    write_json(folder / PROGRESS_FILE, progress)
                    storage.store(folder / PROGRESS_FILE, f"{self.uri}/{name}/{PROGRESS_FILE}")
        else:
            with written_by_all(target, engine.checkpoint_bytes(), self.free) as folder:
                engine.save(folder)
                if first:
                    write_json(folder / PROGRESS_FILE, progress)
        if first:
            names = self._names()
            kept = [n for n in names if self._whole(n)][-self.keep :]
            for old in names:
                if old not in kept:
                    self._drop(old)
        dist.barrier()
        return target

    def newest(self) -> Found | None:
        """The newest complete checkpoint, copied to this machine, in a form that this number of ranks can read.

        Raises:
            TrainingError: it can't be converted.
            DataError: the store can't be reached.
        """
        names = self._names() if dist.get_rank() == 0 else []
        names = [n for n in names if self._whole(n)]
        box = [names[-1] if names else None]
        dist.broadcast_object_list(box, src=0)
        name = box[0]
        if name is None:
            return None
        folder = self.run / name
        if self.uri:
            folder = self.run / "fetched" / name
            with one_per_machine() as mine:
                if mine:
                    storage.fetch(f"{self.uri}/{name}", folder)
        state = read_json(folder / PROGRESS_FILE)
        # Without ZeRO every rank holds everything, and DeepSpeed reads the file of rank 0.
        universal = state["workers"] != dist.get_world_size() and state["zero_stage"] > 0
        if universal:
            with one_per_machine() as mine:
                if mine:
                    convert(folder, state["zero_stage"])
        return Found(folder, int(state["step"]), universal, int(state["skipped"]))

    def restore(self, engine: Engine, found: Found) -> None:
        """Puts the state of a checkpoint into the engine, which was made for `found.universal`."""
        engine.restore(found.folder, UNIVERSAL if found.universal else TAG)
        dist.barrier()  # the other ranks of this machine may still be reading
        with one_per_machine() as mine:
            if mine:
                remove(self.run / "fetched")

    def _names(self) -> list[str]:
        names = storage.listing(self.uri) if self.uri else [p.name for p in self.run.glob(f"{PREFIX}*")]
        return sorted(n for n in names if n.startswith(PREFIX))

    def _whole(self, name: str) -> bool:
        if self.uri:
            return storage.exists(f"{self.uri}/{name}/{PROGRESS_FILE}")
        return (self.run / name / PROGRESS_FILE).is_file()

    def _drop(self, name: str) -> None:
        if self.uri:
            # progress.json first: the rest is not a checkpoint if this is interrupted.
            storage.delete(f"{self.uri}/{name}/{PROGRESS_FILE}")
            storage.delete(f"{self.uri}/{name}")
        else:
            remove(self.run / name / PROGRESS_FILE)
            remove(self.run / name)


@contextmanager
def written_by_one(folder: Path, engine: Engine, free: FreeBytes) -> Iterator[Path]:
    """A folder with what this rank writes of a checkpoint; removed at the end."""
    try:
        require_space(folder.parent, engine.checkpoint_bytes(), free)
        remove(folder)
        folder.mkdir(parents=True)
        try:
            engine.save(folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            if _full(error):
                raise no_space(folder.parent, engine.checkpoint_bytes(), free(folder.parent)) from error
            raise
        yield folder
    finally:
        remove(folder)


@contextmanager
def one_per_machine() -> Iterator[bool]:
    """True for one rank of each machine; all ranks leave together."""
    yield os.environ.get("LOCAL_RANK", "0") == "0"
    dist.barrier()


def _full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return True
    if isinstance(error, SafetensorError):
        return any(f"(os error {number})" in str(error) for number in NO_SPACE)
    return any(text in str(error) for text in WRITER_FAILED)
