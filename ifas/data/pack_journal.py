"""What packing has finished, beside the output: a killed run goes on behind the last whole shard.

.<out>.packing/key.json                     what is packed and how; another key starts from zero
.<out>.packing/shards/shard-00000.parquet   finished shards
.<out>.packing/shard-00000.jsonl            their rows, and what was refused or left out on the way
.<out>.packing/journal.jsonl                a line per finished shard: name, hash, rows, bytes, samples consumed
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
        if not there.is_file() or json.loads(there.read_text(encoding="utf-8")) != key:
            for path in self.folder.iterdir():
                if path.name != "lock":
                    remove(path)
            write_json(there, key)
            return
        journal = self.folder / JOURNAL_FILE
        for line in journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else []:
            try:
                record = json.loads(line)
                part = Part(shard=ShardFile(**record["shard"]), consumed=record["consumed"])
            except (ValueError, KeyError, TypeError):
                break  # the line that was being written when the run was killed
            file = self.folder / SHARDS_DIR / part.shard.name
            if not file.is_file() or sha256_file(file) != part.shard.sha256 or not self._rows(part).is_file():
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
        part = Part(shard=shard, consumed=consumed)
        with replacing(self._rows(part)) as beside, beside.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        with (self.folder / JOURNAL_FILE).open("a", encoding="utf-8") as file:
            file.write(_line(part))
            file.flush()
            os.fsync(file.fileno())
        self.parts.append(part)

    def rows(self, part: Part) -> Iterator[dict[str, Any]]:
        """What was recorded for a shard."""
        with self._rows(part).open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)

    def _rows(self, part: Part) -> Path:
        return self.folder / f"{Path(part.shard.name).stem}.jsonl"


def _line(part: Part) -> str:
    return json.dumps({"shard": asdict(part.shard), "consumed": part.consumed}) + "\n"


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
