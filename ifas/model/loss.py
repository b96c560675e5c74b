"""Lopsided language model loss, L-LM (I-FAS, arXiv 2501.01720).

`L = alpha * L_judgment + (1 - alpha) * L_interpretation`: the verdict is one or two tokens, the caption dozens, so an
ordinary mean over all tokens would drown the verdict. Each part is a mean over its own tokens, the only reading under
which alpha does not depend on the captions' length (the reduction is not stated in the paper).

The means go over the global batch. A micro-batch or a rank only knows its own tokens, so it gives sums and counts
(`lopsided_sums`), and `lopsided` combines them with the global counts: adding up the results of all micro-batches and
ranks gives the loss of the whole batch, however it was split and padded.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

#: What a token of the sequence is. Only the last two kinds carry loss.
PROMPT, JUDGMENT, INTERPRETATION = 0, 1, 2


@dataclass(frozen=True)
class LossSums:
    """Negative log-likelihoods of a (micro-)batch, summed per part: index 0 the judgment, 1 the interpretation.

    Attributes:
        sums: (2,) float32, in nats.
        counts: (2,) float32, numbers of tokens.
    """

    sums: Tensor
    counts: Tensor


def lopsided_sums(logits_NV: Tensor, targets_N: Tensor, parts_N: Tensor) -> LossSums:
    """Per-part sums over N positions. Positions whose part is PROMPT (padding included) count for nothing.

    Args:
        logits_NV: logits at the position before each target.
        targets_N: token ids.
        parts_N: PROMPT, JUDGMENT or INTERPRETATION of each target.
    """
    nll_N = F.cross_entropy(logits_NV.float(), targets_N, reduction="none")
    masks_2N = torch.stack([parts_N == JUDGMENT, parts_N == INTERPRETATION]).to(nll_N.dtype)
    return LossSums(sums=masks_2N @ nll_N, counts=masks_2N.sum(dim=1))


def lopsided(sums_2: Tensor, counts_2: Tensor, alpha: float) -> Tensor:
    """This share's contribution to `alpha * L_judgment + (1 - alpha) * L_interpretation`, a scalar.

    Args:
        sums_2: sums of one share of the batch.
        counts_2: counts of the WHOLE batch: summed over micro-batches and ranks.
        alpha: weight of the judgment, 0 to 1.
    """
    weights_2 = sums_2.new_tensor([alpha, 1.0 - alpha])
    return (weights_2 * sums_2 / counts_2.clamp(min=1)).sum()


def plain(sums_2: Tensor, counts_2: Tensor, _alpha: float) -> Tensor:
    """The ordinary language model loss, for comparison: one mean over all tokens of the answer; else as `lopsided`."""
    return sums_2.sum() / counts_2.sum()


#: `train.loss` -> (sums of a share, counts of the whole batch, alpha) -> the share's part of the loss.
LOSSES = {"lopsided": lopsided, "plain": plain}
