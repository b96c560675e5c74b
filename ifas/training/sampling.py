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
    """

    def __init__(self, classes: Sequence[str], *, seed: int, balance: bool) -> None:
        self.seed = seed
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
        return np.random.default_rng([self.seed, which, epoch]).permutation(self.decks[which])


def positions(step: int, micro: int, rank: int, *, batch: int, workers: int, accumulate: int) -> range:
    """Positions of one rank's micro-batch. All ranks and micro-batches of a step together tile the step's draws."""
    first = step * batch * workers * accumulate
    start = first + (micro * workers + rank) * batch
    return range(start, start + batch)
