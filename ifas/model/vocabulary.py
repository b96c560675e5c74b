"""A closed vocabulary: answers use only the tokens that the answers of training show.

A language model's head has a row for each of tens of thousands of tokens; the captions of a training use a few hundred.
With `model.closed_vocabulary` the loss is a softmax over those alone, and so is every likelihood and every word of an
answer. The head was most of a training step on a CPU. These are tokens, not words: pieces of words can still be put
together in new ways. Our choice, not in the paper.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def tokens_of(answers: Iterable[Iterable[int]]) -> list[int]:
    """The token ids of some answers, each once, in ascending order."""
    return sorted({int(token) for answer in answers for token in answer})


def rows_of(head: Any, ids: Iterable[int]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Some tokens' ids (K,), and their rows of a head: weight (K, W), and bias (K,) where there is one."""
    ids_K = torch.tensor(list(ids), device=head.weight.device)
    bias = getattr(head, "bias", None)
    return ids_K, head.weight[ids_K], None if bias is None else bias[ids_K]


class ClosedHead(nn.Module):
    """A head for inference whose other logits are -inf.

    Args:
        head: of a language model; its weight and bias are shared, not copied.
        ids: of the tokens that answers may use.
    """

    def __init__(self, head: Any, ids: Iterable[int]) -> None:
        super().__init__()
        self.weight, self.bias = head.weight, getattr(head, "bias", None)
        with torch.no_grad():
            self.ids_K, self.weight_KW, self.bias_K = rows_of(head, ids)

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) -> logits (..., V)."""
        known = F.linear(x, self.weight_KW, self.bias_K)
        logits = known.new_full((*known.shape[:-1], len(self.weight)), -torch.inf)
        logits[..., self.ids_K] = known
        return logits


def close(model: Any) -> None:
    """Lets an `IfasModel` that was trained with a closed vocabulary write no other tokens. For inference only."""
    head = model.language.get_output_embeddings()
    if model.config.answer_ids and not isinstance(head, ClosedHead):
        model.language.set_output_embeddings(ClosedHead(head, model.config.answer_ids))
