"""D_S of Algorithm 1: the captions that passed the filter, how much each counts, and who is held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Kept:
    """Pairs of a picture and a caption that names its medium.

    Attributes:
        places: of each pair's picture among the tuning pictures, int (n,).
        texts: its caption.
        media: its medium, as labelled.
        subjects: the person in its picture.
        weights: how much each pair counts in a loss, float (n,), 1 on average.
    """

    places: Integers
    texts: tuple[str, ...]
    media: tuple[str, ...]
    subjects: tuple[str, ...]
    weights: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls,
        passed: Sequence[Sequence[str]],
        media: Sequence[str],
        subjects: Sequence[str],
        *,
        balance: bool = True,
    ) -> Kept:
        """D_S of some pictures.

        All captions of one picture count together as much as one.

        Args:
            passed: of each picture, the captions that passed the filter; none for bona fide pictures.
            media, subjects: spoof type and person of each picture.
            balance: all media count alike, however many pictures show them.
        """
        import numpy as np

        pairs = [(place, text) for place, texts in enumerate(passed) for text in texts]
        places = np.array([place for place, _ in pairs], dtype=np.int64)
        shown = Counter(media[place] for place in set(places.tolist()))
        weights = np.array(
            [1 / len(passed[place]) / (shown[media[place]] if balance else 1) for place, _ in pairs], dtype=np.float64
        )
        return cls(
            places=places,
            texts=tuple(text for _, text in pairs),
            media=tuple(media[place] for place in places.tolist()),
            subjects=tuple(subjects[place] for place in places.tolist()),
            weights=weights / weights.mean() if len(pairs) else weights,
        )

    def __len__(self) -> int:
        return len(self.texts)

    def folds(self, share: float, seed: int) -> Iterator[tuple[Integers, Integers]]:
        """Pairs to learn and pairs of other subjects to choose by, until every subject was held out once.

        Args:
            share: of the subjects that are held out at a time. Nothing is held out at 0, or with fewer than 4 subjects.
        """
        import numpy as np

        people = sorted(set(self.subjects))
        if share <= 0 or len(people) < 4:
            return
        order = np.random.default_rng([seed, len(people)]).permutation(len(people))
        parts = np.array_split(order, min(len(people), max(2, round(1 / share))))
        mine = np.array([people.index(subject) for subject in self.subjects])
        for part in parts:
            held = np.isin(mine, part)
            yield np.flatnonzero(~held), np.flatnonzero(held)
