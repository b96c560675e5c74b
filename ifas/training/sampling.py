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
    """Draws samples without replacement from a shuffled deck; when it is used up, from a new one.

    Args:
        classes: class of each sample: live, or its spoof type.
        seed: seed of the order.
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

    def turn(self, position: int) -> int:
        """How often the sample at a position was drawn before.

        With weights, an epoch of its deck counts as one draw, and its draws within an epoch are counted on from there.
        """
        turn, which = divmod(position, len(self.decks))
        epoch, card = divmod(turn, len(self.decks[which]))
        if self.weights is None:
            return epoch
        shuffled = self._shuffled(which, epoch)
        return epoch + int((shuffled[:card] == shuffled[card]).sum())

    def _shuffle(self, which: int, epoch: int) -> npt.NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, which, epoch])
        deck = self.decks[which]
        if self.weights is not None:
            weights = self.weights[deck]
            ends = np.cumsum(weights) * (len(deck) / weights.sum())
            marks = np.arange(len(deck)) + rng.random()
            deck = deck[np.minimum(np.searchsorted(ends, marks, side="right"), len(deck) - 1)]
        return rng.permutation(deck)


class Draws:
    """The draws of each optimizer step.

    Args:
        sampler: which sample is at a position.
        batch: samples per step, over all ranks and micro-batches.
        lengths: of each sample, for `window`.
        window: steps whose samples are sorted by length, cut into steps again, and dealt in an order of their own;
            1 leaves the draws as they are. The samples of a window stay the same.
        seed: of that order.
    """

    def __init__(
        self, sampler: Sampler, batch: int, *, lengths: Sequence[int] | None = None, window: int = 1, seed: int = 0
    ) -> None:
        self.sampler = sampler
        self.batch = batch
        self.lengths = None if lengths is None else np.asarray(lengths)
        self.window = window
        self.seed = seed
        self._sorted = lru_cache(maxsize=2)(self._sort)

    def step(self, step: int) -> tuple[list[int], list[int]]:
        """Positions in the global order, and samples, of a step: `batch` of each."""
        if self.window == 1 or self.lengths is None:
            positions = list(range(step * self.batch, (step + 1) * self.batch))
            return positions, [self.sampler.draw(p) for p in positions]
        number, place = divmod(step, self.window)
        positions_WB, samples_WB = self._sorted(number)
        return positions_WB[place].tolist(), samples_WB[place].tolist()

    def _sort(self, number: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        size = self.window * self.batch
        positions = np.arange(number * size, (number + 1) * size)
        samples = np.array([self.sampler.draw(int(p)) for p in positions])
        assert self.lengths is not None
        order = np.argsort(self.lengths[samples], kind="stable")
        dealt = np.random.default_rng([self.seed, number, 2]).permutation(self.window)
        return positions[order].reshape(-1, self.batch)[dealt], samples[order].reshape(-1, self.batch)[dealt]
