"""Measures the scale of the tower's levels before the first step; see `connector.LevelScale`."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from torch import distributed as dist

from ifas.training.batches import Batches

#: Images that are looked at: the first that the training draws, so bona fide and attacks as it draws them.
IMAGES = 128
#: Images whose views pass the tower at once.
AT_ONCE = 8


def measure_levels(model: Any, batches: Batches) -> None:
    """Sets `model.connector.scale`, the same on all ranks. Called by every rank, on the model before its first step.

    Args:
        model: `IfasModel`, on its device.
        batches: of this rank.

    Raises:
        DataError: an image can't be read or decoded.
    """
    found = []
    drawn = list(islice(batches.first_versions(), IMAGES))
    training = model.training
    model.eval()
    with torch.no_grad():
        for start in range(0, len(drawn), AT_ONCE):
            _, levels = model.seen(batches.seen(drawn[start : start + AT_ONCE], model))
            found.append(levels)
        model.connector.measure([torch.cat(level) for level in zip(*found, strict=True)])
    model.train(training)
    for moments in (model.connector.scale.shift, model.connector.scale.spread):
        dist.broadcast(moments, 0)
