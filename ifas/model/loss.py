"""Lopsided language model loss, L-LM (I-FAS, arXiv 2501.01720).

`L = alpha * L_judgment + (1 - alpha) * L_interpretation`: the verdict is one or two tokens, the caption dozens, so an
ordinary mean over all tokens would drown the verdict. Each part is a mean over its own tokens, the only reading under
which alpha does not depend on the captions' length (the reduction is not stated in the paper).

The means go over the global batch. A micro-batch or a rank only knows its own tokens, so it gives sums and counts per
sample (`part_sums`), and `lopsided` combines them with the global counts: adding up the results of all micro-batches
and ranks gives the loss of the whole batch, however it was split and padded. A sample's weight multiplies both its sums
and its counts, so a weighted loss is a weighted mean.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

#: What a token of the sequence is. Only the last two kinds carry loss.
PROMPT, JUDGMENT, INTERPRETATION = 0, 1, 2

#: Logits that are in memory at once (see `answer_nll`): so many, or for a large head an eighth of its own size, a small
#: addition that keeps a GPU busy. A product with few rows takes as long as reading the whole head.
CHUNK_ELEMENTS, HEAD_SHARE = 2**22, 8


class LossSums(NamedTuple):
    """Negative log-likelihoods of a (micro-)batch, summed per sample and part: index 0 the judgment, 1 the
    interpretation.

    Attributes:
        sums_B2: in nats, float32 or wider.
        counts_B2: numbers of tokens, in the same type.
    """

    sums_B2: Tensor
    counts_B2: Tensor

    @property
    def sums(self) -> Tensor:
        """(2,), over the samples."""
        return self.sums_B2.sum(dim=0)

    @property
    def counts(self) -> Tensor:
        """(2,), over the samples."""
        return self.counts_B2.sum(dim=0)

    def weighted(self, weights_B: Tensor) -> Tensor:
        """Sums (2,) over the samples, each times its weight."""
        return weights_B.to(self.sums_B2.dtype) @ self.sums_B2


def answer_nll(
    hidden_NW: Tensor, head_VW: Tensor, bias_V: Tensor | None, targets_N: Tensor, chunk_elements: int = 0
) -> Tensor:
    """Negative log-likelihoods (N,) of `targets_N` under `softmax(hidden @ head^T + bias)`, in float32 or wider.

    A language model's logits are its largest tensor, N x V. They are made and used a chunk of rows at a time, and never
    kept: where the head is frozen, a row's gradient is made together with its loss, since it depends on nothing else;
    where it is trained, the logits are made again in the backward pass.

    Args:
        hidden_NW: hidden states at the position before each target.
        head_VW, bias_V: of the language model's head.
        targets_N: token ids.
        chunk_elements: logits in memory at once, at least one row; 0 chooses.
    """
    elements = chunk_elements or max(CHUNK_ELEMENTS, head_VW.numel() // HEAD_SHARE)
    rows = max(1, elements // head_VW.shape[0])
    nll_N: Tensor = _AnswerNll.apply(hidden_NW, head_VW, bias_V, targets_N, rows)  # type: ignore[no-untyped-call]
    return nll_N


class _AnswerNll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, bias: Tensor | None, targets: Tensor, rows: int) -> Tensor:
        nll = torch.empty(hidden.shape[0], dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
        trained = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] and not trained else None
        room = _Room(hidden, head, rows, nll.dtype)
        for s in _slices(hidden, rows):
            logits = room.logits(hidden[s], head, bias)
            nll[s] = room.nll(logits, targets[s])
            if slope is not None:
                slope[s] = room.excess(logits, targets[s]).to(head.dtype) @ head
        ctx.rows, ctx.trained = rows, trained
        ctx.save_for_backward(*((hidden, head, bias, targets) if trained else (slope,)))
        return nll

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        grad_N = grads[0][:, None]
        if not ctx.trained:
            (slope,) = ctx.saved_tensors
            return None if slope is None else (grad_N * slope).to(slope.dtype), None, None, None, None
        hidden, head, bias, targets = ctx.saved_tensors
        to_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        to_head = torch.zeros_like(head) if ctx.needs_input_grad[1] else None
        to_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        room = _Room(hidden, head, ctx.rows, grad_N.dtype)
        for s in _slices(hidden, ctx.rows):
            logits = room.logits(hidden[s], head, bias)
            excess = room.excess(logits, targets[s]).mul_(grad_N[s]).to(head.dtype)
            if to_hidden is not None:
                to_hidden[s] = excess @ head
            if to_head is not None:
                torch.addmm(to_head, excess.t(), hidden[s], out=to_head)
            if to_bias is not None:
                to_bias += excess.sum(dim=0)
        return to_hidden, to_head, to_bias, None, None


class _Room:
    """Memory for the logits of one chunk and for what is made of them, used again by every chunk."""

    def __init__(self, hidden: Tensor, head: Tensor, rows: int, dtype: torch.dtype) -> None:
        size = (min(rows, hidden.shape[0]), head.shape[0])
        self._logits = hidden.new_empty(size)
        self._wide = hidden.new_empty(size, dtype=dtype)

    def logits(self, hidden_NW: Tensor, head_VW: Tensor, bias_V: Tensor | None) -> Tensor:
        """(N, V)."""
        made = torch.mm(hidden_NW, head_VW.t(), out=self._logits[: len(hidden_NW)])
        return made if bias_V is None else made.add_(bias_V)

    def nll(self, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        """(N,)."""
        wide = self._wide[: len(logits_NV)]
        return -torch.log_softmax(logits_NV, -1, dtype=wide.dtype, out=wide).gather(1, targets_N[:, None])[:, 0]

    def excess(self, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        """d nll / d logits = softmax - one-hot, (N, V)."""
        wide = self._wide[: len(logits_NV)]
        # Not exp of the log-probabilities, which is several times slower where many of them are tiny.
        excess_NV: Tensor = torch.softmax(logits_NV, -1, dtype=wide.dtype, out=wide)
        excess_NV.scatter_add_(1, targets_N[:, None], excess_NV.new_full((len(targets_N), 1), -1.0))
        return excess_NV


def _slices(hidden: Tensor, rows: int) -> list[slice]:
    return [slice(start, start + rows) for start in range(0, hidden.shape[0], rows)]


def part_sums(
    nll_N: Tensor, parts_N: Tensor, samples_N: Tensor, batch: int, weights_N: Tensor | None = None
) -> LossSums:
    """Sums per sample and part. Positions whose part is PROMPT (padding included) count for nothing.

    Args:
        nll_N: of each target.
        parts_N: PROMPT, JUDGMENT or INTERPRETATION of each target.
        samples_N: index in the batch of the sample that each target belongs to.
        batch: number of samples B.
        weights_N: of each target, in sums and counts alike; None: 1.
    """
    masks_N2 = torch.stack([parts_N == JUDGMENT, parts_N == INTERPRETATION], dim=1)
    members_BN = samples_N == torch.arange(batch, device=samples_N.device)[:, None]
    # Selected, not multiplied by 0 or 1, so that a NaN stays in its sample. No index_add: its order varies on a GPU.
    chosen_BN2 = members_BN[:, :, None] & masks_N2
    weights_N = torch.ones_like(nll_N) if weights_N is None else weights_N.to(nll_N.dtype)
    return LossSums(
        sums_B2=torch.where(chosen_BN2, (weights_N * nll_N)[None, :, None], 0).sum(dim=1),
        counts_B2=torch.where(chosen_BN2, weights_N[None, :, None], 0).sum(dim=1),
    )


def lopsided(sums_2: Tensor, counts_2: Tensor, alpha: float) -> Tensor:
    """The contribution of one share of the batch to `alpha * L_judgment + (1 - alpha) * L_interpretation`, a scalar.

    Args:
        sums_2: sums of one share of the batch.
        counts_2: counts of the WHOLE batch: summed over micro-batches and ranks. Weighted where the sums are.
        alpha: weight of the judgment, 0 to 1.
    """
    weights_2 = sums_2.new_tensor([alpha, 1.0 - alpha])
    # Counts of weighted samples may be below one: only an empty part must not divide by zero.
    return (weights_2 * sums_2 / torch.where(counts_2 > 0, counts_2, 1)).sum()


def plain(sums_2: Tensor, counts_2: Tensor, _alpha: float) -> Tensor:
    """The ordinary language model loss, for comparison: one mean over all tokens of the answer; else as `lopsided`."""
    return sums_2.sum() / counts_2.sum()


#: `train.loss` -> (sums of a share, counts of the whole batch, alpha) -> the share's part of the loss.
LOSSES = {"lopsided": lopsided, "plain": plain}
