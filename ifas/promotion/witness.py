"""Heads of the ledger, kept outside of its database.

The ledger's hashes hold no secret: who may write to the whole database can write the whole chain anew, or cut off its
end, and it fits again. So each entry's hash is also kept as an object in another place, whose rights are others' (a
bucket that allows new objects only, a folder of another account). An entry that the ledger no longer has is found, and
where heads are required, one that the place does not know is, too. Heads are not signed by themselves: who may write to
both places is not found out.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ifas.core import storage
from ifas.core.errors import DataError, RegistryError
from ifas.core.progress import emit

#: Seconds before each look at a head that is not there: who makes an entry keeps its head a moment later.
PAUSES = (0.0, 0.5, 1.5, 4.0)
#: How long who has made an entry waits for a place that does not answer.
PATIENCE_S = 30.0

T = TypeVar("T")


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


#: Reads a ledger: anything, and the head of every entry of a chain in the same view.
Look = Callable[[], tuple[T, Sequence[Head]]]


class Place(Protocol):
    """Keeps small files that stay as they are. `uri`: as people read it; `undo`: how its owner begins anew."""

    uri: str
    undo: str

    def names(self) -> Sequence[str]:
        """Names of the files that are there. Raises DataError."""
        ...

    def add(self, files: Mapping[str, str]) -> None:
        """Keeps files: name -> text. Raises DataError."""
        ...


class Stored:
    """A folder, or a prefix in an object store."""

    undo = "who owns that place moves heads away"

    def __init__(self, uri: str) -> None:
        self.uri = storage.uri_of(uri)

    def names(self) -> Sequence[str]:
        """Raises DataError: the store can't be reached."""
        return storage.listing(self.uri)

    def add(self, files: Mapping[str, str]) -> None:
        """Raises DataError: the store can't be reached, or refuses."""
        for name, text in files.items():
            with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                file.write(text)
                file.flush()
                storage.store(Path(file.name), f"{self.uri}/{name}")


class Witness:
    """Where heads are kept.

    Args:
        place: a folder or a prefix in an object store, by its URI; or another place.
        required: whether an entry whose head is not kept counts for nothing. Where not, a place that is away holds up
            nothing: what it lacks it gets with the next entry. What it has kept, the ledger must have in either case.
    """

    def __init__(self, place: str | Place, *, required: bool = True) -> None:
        self._place = Stored(place) if isinstance(place, str) else place
        self.uri = self._place.uri
        self.required = required

    @classmethod
    def of(cls, given: str | Witness) -> Witness | None:
        """The witness at a URI, where heads are then required; one that is a witness already; None for an empty URI."""
        return (cls(given) if given else None) if isinstance(given, str) else given

    def keep(self, heads: Iterable[Head]) -> None:
        """Keeps heads; one that is there stays as it is.

        Raises:
            DataError: the place can't be reached or refuses, or has another head in the place of one of these.
        """
        there: dict[tuple[str, int], set[str]] = {}
        for chain, seq, sha256 in filter(None, map(_parsed, self._place.names())):
            there.setdefault((chain, seq), set()).add(sha256)
        lacking = {}
        for head in heads:
            kept = there.get((head.chain, head.seq), set())
            if kept - {head.hash}:
                raise DataError(
                    f"{self.uri} has kept another entry {head.seq} of the {head.chain}: it is the witness of another "
                    "ledger, or this one is an older copy or was altered",
                    f"give each ledger a witness of its own; for one that was restored or begun anew on purpose: "
                    f"{self._place.undo}",
                )
            if not kept:
                said = {"chain": head.chain, "seq": head.seq, "hash": head.hash, "about": head.about}
                lacking[head.name] = json.dumps(said)
        self._place.add(lacking)

    def keep_made(self, made: Sequence[Head], every: Callable[[], Sequence[Head]]) -> None:
        """Keeps the heads of entries that this process has just made.

        Where heads are required it waits for a place that is away; else a note tells of it.

        Args:
            every: the heads of all entries, for a place that may lack earlier ones.

        Raises:
            DataError: as `keep`. The entries stand, and count for nothing while heads are required and not kept.
        """
        if made and not self.required:
            try:
                self.keep(every())
            except RegistryError as error:
                emit("note", "ledger", text=f"the ledger's heads are not kept outside of it: {error.what}; {error.fix}")
            return
        for head in made:
            try:
                with storage.patient(PATIENCE_S):
                    self.keep([head])
            except DataError as error:
                raise DataError(
                    f"entry {head.seq} of the {head.chain} stands ({head.about}), but its head was not kept: "
                    f"{error.what}",
                    f"{error.fix}; then: ifas ledger keep {head.hash[:12]}",
                ) from error

    def missing(self, chain: str, look: Look[object], ledger: str) -> list[Head]:
        """Those of a chain's heads that are not kept here.

        Args:
            look: reads the ledger: anything, and the head of every entry in the same view.
            ledger: as it is shown to people.

        Raises:
            DataError: an entry whose head is kept here is no longer in the ledger, or is another; or the place can't be
                reached.
        """
        return self._compared(chain, look, ledger)[1]

    def check(self, chain: str, look: Look[T], ledger: str) -> T:
        """What `look` reads, if what is kept here and that view of the ledger are the same.

        Args:
            look, ledger: as for `missing`.

        Raises:
            DataError: as `missing`, or a head that is required is not kept here.
        """
        if not self.required:
            return self._compared(chain, look, ledger)[0]
        missing: list[Head] = []
        for wait in PAUSES:
            time.sleep(wait)
            found, missing = self._compared(chain, look, ledger)
            if not missing:
                return found
        others = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            f"entry {missing[0].seq} of the {chain} of ledger {ledger} ({missing[0].about}){others} has no head at "
            f"{self.uri}: it was not made by ifas, or with another witness, or the process that made it was killed",
            "look at each: ifas ledger keep lists them",
        )

    def _compared(self, chain: str, look: Look[T], ledger: str) -> tuple[T, list[Head]]:
        names = self._names()  # before the ledger is read: what is kept by now, it has
        found, heads = look()
        now = {head.seq: head.hash for head in heads}
        # There may be several of one place: of who has added another one, to hide the first.
        kept = {one[1:] for name in names if (one := _parsed(name)) and one[0] == chain}
        for seq, sha256 in sorted(kept):
            if now.get(seq) != sha256:
                what = "another one now" if seq in now else "gone"
                raise DataError(
                    f"ledger {ledger} was altered: entry {seq} of its {chain}, which {self.uri} has kept, is {what}",
                    "approve and package nothing from it; its heads tell which copy of it is whole. For one that was "
                    f"restored or begun anew on purpose: {self._place.undo}",
                )
        return found, [head for head in heads if (head.seq, head.hash) not in kept]

    def _names(self) -> Sequence[str]:
        try:
            return self._place.names()
        except RegistryError as error:
            if self.required:
                raise
            emit("note", "ledger", text=f"the ledger is not compared with its heads: {error.what}; {error.fix}")
            return []


def _parsed(name: str) -> tuple[str, int, str] | None:
    """Chain, place and hash of a head, from the name of its object."""
    found = re.fullmatch(r"([a-z]+)-(\d{8,})-([0-9a-f]{64})\.json", name)
    return (found[1], int(found[2]), found[3]) if found else None
