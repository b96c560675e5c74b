"""Which images are in the dataset already, and which contradict each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ifas.data.pack.piece import Finished
from ifas.data.readers import Refusal


class Duplicate(NamedTuple):
    """An image whose bytes are in the dataset already."""

    source: str
    same_as: str


@dataclass
class SeenImages:
    """Bytes seen so far, over all pieces: hashes and sources, no images and no rows."""

    first: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    contradicting: dict[bytes, set[str]] = field(default_factory=dict)
    _again: list[tuple[bytes, str]] = field(default_factory=list)

    def take(self, sample_id: str, source: str, species: str) -> bool:
        """Counts an image; whether it is the first of its bytes. They are to be taken in packing order."""
        key = bytes.fromhex(sample_id)
        there = self.first.get(key)
        if there is None:
            self.first[key] = (source, species)
            return True
        self._again.append((key, source))
        if species != there[1]:
            self.contradicting.setdefault(key, {there[1]}).add(species)
        return False

    def take_piece(self, piece: Finished) -> list[int]:
        """Counts the images of a piece; the numbers of its rows whose bytes are in an earlier piece."""
        rows = piece.rows(["sample_id", "source", "pai_species"])
        columns = [rows[name].to_pylist() for name in rows.column_names]
        later = [number for number, row in enumerate(zip(*columns, strict=True)) if not self.take(*row)]
        for sample_id, source, species in piece.again:
            self.take(sample_id, source, species)
        return later

    @property
    def duplicates(self) -> list[Duplicate]:
        """Images left out because the same bytes are there, with the same species."""
        return sorted(Duplicate(s, self.first[key][0]) for key, s in self._again if key not in self.contradicting)

    @property
    def contradictions(self) -> list[Refusal]:
        """All images whose bytes are there under more than one species."""
        said = {
            key: f"the same bytes are there more than once, labelled {', '.join(sorted(species))}"
            for key, species in self.contradicting.items()
        }
        again = [Refusal(source, said[key]) for key, source in self._again if key in said]
        return [*(Refusal(self.first[key][0], reason) for key, reason in said.items()), *again]
