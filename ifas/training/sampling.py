"""Which sample is drawn when: a function of the seed and the position alone.

Positions number the draws of the whole training over all ranks, so the order does not depend on how many ranks there
are, and a resumed run goes on with the very draws that the interrupted one would have made.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt


class Sampler:
    """Draws samples without replacement, deck after deck.

    Args:
        classes: class of each sample: live, or its spoof type.
        seed: of the order.
        balance: one deck per class, dealt in turn, so that all classes are drawn equally often; otherwise one deck.
        weights: how often each sample is in a deck, relative to the others of the deck; None: once each. A deck keeps
            its size, and a sample is in it either floor or ceil of its expected number of times (systematic sampling).
    """

    def __init__(
        self, classes: Sequence[str], *, seed: int, balance: bool, weights: Sequence[float] | None = None
    ) -> None:
        self.seed = seed
        self.weights = None if weights is None else np.asarray(weights, dtype=np.float64)
        groups = sorted(set(classes)) if balance else [""]
        self.decks = [
            np.array([i for i, c in enumerate(classes) if not balance or c == group], dtype=np.int64)
            for group in groups
        ]
        self._shuffled = lru_cache(maxsize=4 * len(self.decks))(self._shuffle)

    def draw(self, position: int) -> int:
        """Index of the sample at a position of the global order."""
        turn, which = divmod(position, len(self.decks))
        deck = self.decks[which]
        epoch, card = divmod(turn, len(deck))
        return int(self._shuffled(which, epoch)[card])

    def _shuffle(self, which: int, epoch: int) -> npt.NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, which, epoch])
        deck = self.decks[which]
        if self.weights is not None:
            weights = self.weights[deck]
            ends = np.cumsum(weights) * (len(deck) / weights.sum())
            marks = np.arange(len(deck)) + rng.random()
            deck = deck[np.minimum(np.searchsorted(ends, marks, side="right"), len(deck) - 1)]
        return rng.permutation(deck)


def positions(step: int, micro: int, rank: int, *, batch: int, workers: int, accumulate: int) -> range:
    """Positions of one rank's micro-batch. All ranks and micro-batches of a step together tile the step's draws."""
    first = step * batch * workers * accumulate
    start = first + (micro * workers + rank) * batch
    return range(start, start + batch)
