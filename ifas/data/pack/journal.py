"""The pieces that packing has finished, beside the output: a killed run goes on with those that are missing.

.<out>.packing/key.json     what is packed and how; another key starts from zero
.<out>.packing/00000/       a finished piece, see `piece`
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ifas.core.errors import DataError
from ifas.core.files import remove, write_json
from ifas.data.pack.piece import piece_folder, whole
from ifas.data.pack.plan import Piece

KEY_FILE, LOCK_FILE = "key.json", "lock"


def missing(folder: Path, key: dict[str, Any], pieces: list[Piece]) -> list[Piece]:
    """Pieces that an interrupted run with the same key did not finish. Everything else that it left is removed.

    A piece is taken as finished when its hashes are right, so writing one need not wait for the disk.
    """
    there = folder / KEY_FILE
    same = _holds(there, key)
    done = {piece.number for piece in pieces if same and whole(piece, folder)}
    keep = {KEY_FILE, LOCK_FILE, *(piece_folder(folder, p).name for p in pieces if p.number in done)}
    for path in folder.iterdir():
        if path.name not in keep:
            remove(path)
    if not same:
        write_json(there, key)
    return [piece for piece in pieces if piece.number not in done]


def _holds(file: Path, key: dict[str, Any]) -> bool:
    """Whether a key file says `key`; a damaged one says nothing."""
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")) == key)
    except (OSError, ValueError):
        return False


@contextmanager
def journal_beside(out: Path) -> Iterator[Path]:
    """The folder for pieces of `out`; removed when packing succeeds or the dataset is unusable, else kept.

    Raises:
        DataError: another process packs into the same folder.
    """
    folder = out.with_name(f".{out.name}.packing")
    held = f"another process is packing into {out}", "wait for it, or pack elsewhere"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(*held) from None
        # The one before may have finished, and removed the folder, between our opening and our locking.
        if not (folder / LOCK_FILE).exists() or os.fstat(lock.fileno()).st_ino != (folder / LOCK_FILE).stat().st_ino:
            raise DataError(*held)
        try:
            yield folder
        except DataError:  # the dataset is unusable: there is nothing to go on with
            remove(folder)
            raise
        remove(folder)
