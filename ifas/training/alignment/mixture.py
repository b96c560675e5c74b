"""What the second stage trains on: as many chosen answers as corrective turns, with Yes about as often as No."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from zlib import crc32

from ifas.core.claims import Cues
from ifas.training.alignment.answers import Answer
from ifas.training.alignment.codebook import CODEBOOK, corrections
from ifas.training.alignment.examples import Example
from ifas.training.alignment.turns import Turn, turn
from ifas.training.job import Row

#: Largest share of Yes or No among the turns. Else the model learns the more frequent answer, not to look at images.
MOST_ALIKE = Fraction(55, 100)


@dataclass(frozen=True)
class Corrective:
    """A turn, the image it is about and the error it corrects."""

    example: Example
    turn: Turn
    error: str

    def row(self) -> Row:
        """As a training sample."""
        return Row(
            self.example.known.sample_id,
            self.example.shard,
            self.example.row,
            self.example.known.spoof_type,
            self.turn.text,
            question=self.turn.question,
            yes=self.turn.yes,
            judged=self.turn.judged,
            box=self.example.box,
        )


def correctives(
    mined: Sequence[tuple[Example, Sequence[Answer]]], cues: Cues, *, most: int
) -> tuple[list[Corrective], dict[str, int]]:
    """Corrective turns of mined answers, and how many answers made each error.

    A question is asked once per image. Pairs come in the codebook's order, the frequent ones of an error first.

    Args:
        mined: images with the answers sampled on each.
        most: turns per image.
    """
    found: list[Corrective] = []
    errors: Counter[str] = Counter()
    order = {error: place for place, error in enumerate(CODEBOOK)}
    for example, answers in mined:
        wrong = [corrections(answer, example.known, cues) for answer in answers]
        errors.update(error for one in wrong for error in {correction.error for correction in one})
        counts = Counter(correction for one in wrong for correction in one)
        pairs = sorted(counts, key=lambda c: (order[c.error], -counts[c], c))[: most // 2]
        asked: set[str] = set()
        for correction in pairs:
            for fact in (correction.denied, correction.affirmed):
                made = turn(fact, example.known, cues)
                if made.question not in asked:
                    asked.add(made.question)
                    found.append(Corrective(example, made, correction.error))
    return balanced(found), {error: errors[error] for error in CODEBOOK}


def balanced(found: Sequence[Corrective]) -> list[Corrective]:
    """The turns without the surplus of Yes or of No, among judged turns and among the others.

    Each pair has one Yes and one No; a surplus comes from questions that two pairs share. A hash chooses what goes.
    """
    kept: set[int] = set()
    for judged in (True, False):
        sides = [
            [i for i, one in enumerate(found) if one.turn.judged is judged and one.turn.yes is yes]
            for yes in (True, False)
        ]
        room = int(min(map(len, sides)) * MOST_ALIKE / (1 - MOST_ALIKE))
        for side in sides:
            kept.update(sorted(side, key=lambda i: _hash(found[i]))[:room])
    return [one for i, one in enumerate(found) if i in kept]


def mixture(chosen: Sequence[Row], turns: Sequence[Row], *, balance: bool, weighted: bool) -> tuple[Row, ...]:
    """Chosen answers and turns, with weights such that each kind is drawn half of the time.

    Args:
        chosen: the rows of the first stage.
        turns: of `Corrective.row`.
        balance: every spoof type of the chosen rows is drawn equally often.
        weighted: rows keep their own weights within that.
    """
    own = [row.weight if weighted else 1.0 for row in chosen]
    classes = [row.spoof_type if balance else "" for row in chosen]
    totals: dict[str, float] = {}
    for kind, weight in zip(classes, own, strict=True):
        totals[kind] = totals.get(kind, 0.0) + weight
    first = [
        row._replace(weight=weight / totals[kind] / len(totals))
        for row, kind, weight in zip(chosen, classes, own, strict=True)
    ]
    return (*first, *(row._replace(weight=1 / len(turns)) for row in turns))


def yes_share(turns: Sequence[Turn]) -> Mapping[str, float]:
    """Share of Yes among judged turns and among the others, where there are any."""
    shares = {}
    for name, judged in (("judged", True), ("described", False)):
        mine = [one.yes for one in turns if one.judged is judged]
        if mine:
            shares[name] = round(sum(mine) / len(mine), 4)
    return shares


def _hash(one: Corrective) -> int:
    return crc32(f"{one.example.known.sample_id} {one.turn.question}".encode())
