"""AdamW as every ZeRO stage runs it, with steps that can be skipped and an exponential average of the weights.

The average is a state of the optimizer, like its moments: float32, split over the ranks as ZeRO splits them, offloaded
with them, and part of each checkpoint. After step t (from 1) it is

    a_1 = w_1,    a_t = d_t a_{t-1} + (1 - d_t) w_t,    d_t = min(average, (1 + t) / (10 + t))

so it holds nothing of the weights before the first step, and the mean age of what a short run averages is t / 10.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

#: Name of the average among the optimizer's states.
AVERAGE = "average"


class AdamW(torch.optim.AdamW):
    """torch's AdamW; DeepSpeed's own optimizers are compiled on first use, which takes minutes and a compiler.

    Args:
        groups: parameter groups.
        average: largest decay of the average; 0 keeps none.

    Attributes:
        skip: a step leaves weights, moments and average as they are, under any ZeRO stage.
    """

    def __init__(self, groups: list[dict[str, Any]], average: float = 0.0) -> None:
        super().__init__(groups)
        self.average = average
        self.skip = False

    def step(self, closure: Any = None) -> Any:
        """As in torch. ZeRO calls it once for each group, which is then the only one that has parameters."""
        if self.skip:
            return None
        loss = super().step(closure)
        if self.average:
            self._follow()
        return loss

    @torch.no_grad()
    def _follow(self) -> None:
        """Moves the averages of the weights that were stepped."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if AVERAGE not in state:
                    state[AVERAGE] = weight.detach().clone()
                    continue
                t = float(state["step"])  # on the CPU wherever the weights are
                state[AVERAGE].lerp_(weight.detach(), 1 - min(self.average, (1 + t) / (10 + t)))

    @torch.no_grad()
    def exchange(self) -> None:
        """Weights and averages change places."""
        for weight, state in self.state.items():
            if AVERAGE in state:
                kept = weight.detach().clone()
                weight.copy_(state[AVERAGE])
                state[AVERAGE].copy_(kept)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averages are in the weights' places."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    @contextmanager
    def becoming_averages(self) -> Iterator[None]:
        """Whatever is put in the weights' places meanwhile becomes the averages; the weights come back."""
        kept = {weight: weight.detach().clone() for weight in self.state}
        yield
        with torch.no_grad():
            for weight, own in kept.items():
                self.state[weight][AVERAGE] = weight.detach().clone()
                weight.copy_(own)
