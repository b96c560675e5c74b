"""What packing has finished, beside the output: a killed run goes on behind the last whole shard.

.<out>.packing/key.json                     what is packed and how; another key starts from zero
.<out>.packing/shards/shard-00000.parquet   finished shards
.<out>.packing/shard-00000.json             their rows, and what was refused or left out on the way
.<out>.packing/journal.jsonl                a line per finished shard: name, hash of each, rows, bytes, samples consumed
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ifas.core.errors import DataError
from ifas.core.files import remove, replacing, sha256_file, write_json
from ifas.core.manifest import SHARDS_DIR
from ifas.data.tables import ShardFile

KEY_FILE, JOURNAL_FILE = "key.json", "journal.jsonl"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A finished shard; `consumed` samples, in packing order, are dealt with up to its end."""

    shard: ShardFile
    consumed: int
    rows_sha256: str


class Journal:
    """The folder of an unfinished packing. Made by `journal_beside`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: list[Part] = []

    @property
    def consumed(self) -> int:
        """Samples that need not be looked at again."""
        return self.parts[-1].consumed if self.parts else 0

    def open(self, key: dict[str, Any]) -> None:
        """Takes up what an interrupted run with the same key left; everything else is removed."""
        there = self.folder / KEY_FILE
        if not _holds(there, key):
            for path in self.folder.iterdir():
                if path.name != "lock":
                    remove(path)
            write_json(there, key)
            return
        journal = self.folder / JOURNAL_FILE
        for line in journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else []:
            try:
                record = json.loads(line)
                shard = ShardFile(**record["shard"])
                part = Part(shard=shard, consumed=record["consumed"], rows_sha256=record["rows_sha256"])
            except (ValueError, KeyError, TypeError):
                break  # the line that was being written when the run was killed
            wanted = {
                self.folder / SHARDS_DIR / part.shard.name: part.shard.sha256,
                self._rows(shard): part.rows_sha256,
            }
            if not all(file.is_file() and sha256_file(file) == sha256 for file, sha256 in wanted.items()):
                break
            self.parts.append(part)
        known = {part.shard.name for part in self.parts}
        for file in (self.folder / SHARDS_DIR).glob("*"):
            if file.name not in known:
                file.unlink()
        with replacing(journal) as beside:
            beside.write_text("".join(_line(part) for part in self.parts), encoding="utf-8")

    def add(self, shard: ShardFile, consumed: int, rows: list[dict[str, Any]]) -> None:
        """Records a finished shard: first its rows, then the line that vouches for both."""
        # As one value: row by row, JSON costs twice the time.
        with replacing(self._rows(shard)) as beside:
            beside.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        part = Part(shard=shard, consumed=consumed, rows_sha256=sha256_file(self._rows(shard)))
        with (self.folder / JOURNAL_FILE).open("a", encoding="utf-8") as file:
            # No fsync, which would wait for the shard to be on the disk: hashes say what is whole when this is read.
            file.write(_line(part))
        self.parts.append(part)

    def rows(self, part: Part) -> list[dict[str, Any]]:
        """What was recorded for a shard."""
        rows: list[dict[str, Any]] = json.loads(self._rows(part.shard).read_text(encoding="utf-8"))
        return rows

    def _rows(self, shard: ShardFile) -> Path:
        return self.folder / f"{Path(shard.name).stem}.json"


def _holds(file: Path, key: dict[str, Any]) -> bool:
    """Whether a key file says `key`; a damaged one says nothing."""
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")) == key)
    except (OSError, ValueError):
        return False


def _line(part: Part) -> str:
    return json.dumps(asdict(part)) + "\n"


@contextmanager
def journal_beside(out: Path) -> Iterator[Journal]:
    """The journal of packing into `out`; removed when packing succeeds or the dataset is unusable, else kept.

    Raises:
        DataError: another process packs into the same folder.
    """
    folder = out.with_name(f".{out.name}.packing")
    held = f"another process is packing into {out}", "wait for it, or pack elsewhere"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(*held) from None
        # The one before may have finished, and removed the folder, between our opening and our locking.
        if not (folder / "lock").exists() or os.fstat(lock.fileno()).st_ino != (folder / "lock").stat().st_ino:
            raise DataError(*held)
        try:
            yield Journal(folder)
        except DataError:  # the dataset is unusable: there is nothing to go on with
            remove(folder)
            raise
        remove(folder)
