"""Heads of the ledger, kept outside of its database.

The ledger's hashes hold no secret: who may write to the whole database can write the whole chain anew, or cut off its
end, and it fits again. So each entry's hash is also kept as an object in another place, whose rights are others' (a
bucket that allows new objects only, a folder of another account). An entry that the place does not know, and one that
the ledger no longer has, are both found. Heads are not signed: who may write to both places is not found out.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ifas.core import storage
from ifas.core.errors import DataError

#: Seconds before each look at a head that is not there: who makes an entry keeps its head a moment later.
PAUSES = (0.0, 0.5, 1.5, 4.0)


@dataclass(frozen=True)
class Head:
    """An entry of a chain, by its place in it and its hash; `about` says what it is, for people."""

    chain: str
    seq: int
    hash: str
    about: str

    @property
    def name(self) -> str:
        """Name of its object."""
        return f"{self.chain}-{self.seq:08d}-{self.hash}.json"


class Witness:
    """Where heads are kept.

    Args:
        uri: a folder, or a prefix in an object store.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri if storage.is_remote(uri) else Path(uri).absolute().as_uri()

    def keep(self, heads: Iterable[Head]) -> None:
        """Keeps heads; one that is there stays as it is.

        Raises:
            DataError: the place can't be reached or refuses.
        """
        there = set(storage.listing(self.uri))
        for head in heads:
            if head.name in there:
                continue
            with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                json.dump({"chain": head.chain, "seq": head.seq, "hash": head.hash, "about": head.about}, file)
                file.flush()
                storage.store(Path(file.name), f"{self.uri}/{head.name}")

    def missing(self, chain: str, heads: Callable[[], Sequence[Head]], ledger: str) -> list[Head]:
        """Those of a chain's heads that are not kept here.

        Args:
            heads: reads those of every entry of the ledger.
            ledger: as it is shown to people.

        Raises:
            DataError: an entry whose head is kept here is no longer in the ledger, or is another; or the place can't be
                reached.
        """
        names = storage.listing(self.uri)  # before the ledger is read: what is kept by now, it has
        now = {head.seq: head for head in heads()}
        kept = set()
        for name in names:
            found = re.fullmatch(rf"{chain}-(\d{{8,}})-([0-9a-f]{{64}})\.json", name)
            if not found:
                continue
            seq, entry = int(found[1]), now.get(int(found[1]))
            if entry is None or entry.hash != found[2]:
                what = "gone" if entry is None else "another one now"
                raise DataError(
                    f"ledger {ledger} was altered: entry {seq} of its {chain}, which {self.uri} has kept, is {what}",
                    "restore it from a backup; approve and package nothing from it until then",
                )
            kept.add(seq)
        return [head for seq, head in now.items() if seq not in kept]

    def check(self, chain: str, heads: Callable[[], Sequence[Head]], ledger: str) -> None:
        """Whether what is kept here and a chain of the ledger are the same.

        Args:
            heads, ledger: as for `missing`.

        Raises:
            DataError: as `missing`, or a head is not kept here.
        """
        for wait in PAUSES:
            time.sleep(wait)
            missing = self.missing(chain, heads, ledger)
            if not missing:
                return
        raise DataError(
            f"entry {missing[0].seq} of the {chain} of ledger {ledger} ({missing[0].about}) has no head at {self.uri}: "
            "it was not made by ifas, or the process that made it was killed",
            "look at it; if it is right, keep its head: ifas ledger keep",
        )
