"""Packs pieces by several processes: threads would wait for each other at the interpreter's lock."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ifas.core.environment import hidden
from ifas.data.pack.piece import Options, pack_piece
from ifas.data.pack.plan import Piece
from ifas.data.tables import manifest_table

#: Seconds between two looks at how far the processes are.
POLL = 0.25
#: Pieces of images for each process from which it pays to start them: that takes as long as packing one.
ENOUGH = 2
#: Samples are counted by process; process ids lie closer together than this.
SLOTS = 4096


class PackingPool:
    """Up to `workers` processes, started where there is work for them. They end when this one does, however it does."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> PackingPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            if kind is None:
                self._pool.shutdown(wait=False)
            else:
                self._end(self._pool)

    def expect(self, root: Path, shard_bytes: int) -> None:
        """Starts the processes where `root` holds enough for them, so that they are there when it has been scanned."""
        enough, found = ENOUGH * self._workers * shard_bytes, 0
        for folder, _, names in os.walk(root) if self._workers > 1 else ():
            for name in names:
                with suppress(OSError):
                    found += os.stat(os.path.join(folder, name)).st_size
            if found >= enough:
                self._start()
                return

    def pack(self, pieces: list[Piece], folder: Path, options: Options, advance: Callable[[int], None]) -> None:
        """Packs `pieces`, each into its folder below `folder`; a few pieces of images are packed by this process.

        Args:
            advance: is told how many more samples are dealt with.

        Raises:
            OSError: of the disk; the first one ends all.
            BrokenProcessPool: a process was killed.
        """
        light = all(sample.container == "image" for piece in pieces for sample in piece.samples)
        if self._workers < 2 or len(pieces) < (ENOUGH * self._workers if light else 2):
            for piece in pieces:
                pack_piece(piece, folder, options, lambda: advance(1))
            return
        pool = self._pool or self._start()
        done = 0
        try:
            with _undisturbed():
                pending = {pool.submit(_pack, piece, folder, options) for piece in pieces}
            while pending:
                ready, pending = wait(pending, timeout=POLL, return_when=FIRST_COMPLETED)
                now = sum(self._counted)
                advance(now - done)
                done = now
                for future in ready:
                    future.result()
        except BaseException:
            # Who is in the middle of a piece must not write when the caller has given up the folder.
            self._end(pool)
            raise

    def _end(self, pool: ProcessPoolExecutor) -> None:
        self._stop.value = True
        pool.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        # Without locks: a process that is killed would keep one.
        self._counted, self._stop = context.RawArray("q", SLOTS), context.RawValue("b", 0)
        self._pool = ProcessPoolExecutor(self._workers, context, _begin, (self._counted, self._stop))
        with _undisturbed():
            for _ in range(self._workers):
                self._pool.submit(_warm)
        return self._pool


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Processes that are started within do not hear of Ctrl-C: this process does, and tells them to stop."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Stopped(Exception):
    """Another process failed, or the user stopped the run."""


_counted: Any = None
_stop: Any = None


def _begin(counted: Any, stop: Any) -> None:
    global _counted, _stop
    _counted, _stop = counted, stop
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _warm() -> None:
    """Imports what packing needs, and has the garbage collector never look at it again."""
    # Arrow looks for pandas once, to know its objects, which nobody packs: half of all that would be imported.
    with hidden("pandas"):
        manifest_table([])
    gc.freeze()


def _pack(piece: Piece, folder: Path, options: Options) -> None:
    pack_piece(piece, folder, options, _count)


def _count() -> None:
    _counted[os.getpid() % SLOTS] += 1
    if _stop.value:
        raise _Stopped
