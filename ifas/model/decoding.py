"""Greedy decoding of a batch behind a KV cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

#: Share of ended rows from which they are dropped from the batch; dropping copies the cache of the other rows.
LEAVE = 0.25
#: Tokens that are sorted by likelihood at first, where the likeliest may not be said.
FEW = 64

#: Row, the tokens that it would then have written -> whether it may.
Permission = Callable[[int, Sequence[int]], bool]


def greedy(
    language: Any,
    cache: Any,
    given: Sequence[Sequence[int]],
    *,
    end_id: int,
    limits: Sequence[int],
    may_say: Permission = lambda _row, _tokens: True,
) -> Iterator[list[tuple[int, int]]]:
    """Greedy decoding: the likeliest next token of every row among those that it may say, until the row ends.

    As many given tokens as all rows have go in at once, all but the last of them. Then each step feeds one token per
    row, the other given ones included. So rows with different numbers of given tokens need no padding, and a row's
    tokens do not depend on the other rows, but for rounding.

    Args:
        language: causal language model.
        cache: of B prompts of one length; it is used up.
        given: B lists of at least one token that the cache has not seen; the answer goes on from them.
        end_id: token that ends a row.
        limits: most tokens that each row writes, the end token included.
        may_say: asked before a row writes a token, the end token included. A row that may say nothing ends.

    Yields:
        At each step (row, token) of the rows that wrote one, in the order of the rows. A row's last is the end token,
        or its last within the limit.
    """
    rows = list(range(len(given)))
    written: list[list[int]] = [[] for _ in given]
    live = {row for row in rows if limits[row] > 0}
    device = language.get_input_embeddings().weight.device
    step = min(map(len, given), default=1) - 1
    if live and step:
        with torch.inference_mode():
            ids_BT = torch.tensor([list(ids[:step]) for ids in given], device=device)
            language.get_decoder()(input_ids=ids_BT, past_key_values=cache, use_cache=True)
    tokens = [ids[step] for ids in given]
    while live:
        with torch.inference_mode():
            ids_B1 = torch.tensor(tokens, device=device)[:, None]
            logits_BV = language(input_ids=ids_B1, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[
                :, -1
            ]
            tokens = logits_BV.argmax(dim=-1).tolist()
        step += 1
        new: list[tuple[int, int]] = []
        for place, row in enumerate(rows):
            if step < len(given[row]):
                tokens[place] = given[row][step]
            elif row in live:
                said = written[row]
                said.append(tokens[place])
                if not may_say(row, said):
                    said[-1] = tokens[place] = _next_best(logits_BV[place], row, said, end_id, may_say)
                new.append((row, tokens[place]))
                if tokens[place] == end_id or len(said) == limits[row]:
                    live.remove(row)
        yield new
        if live and len(rows) - len(live) >= LEAVE * len(rows):
            stay = [place for place, row in enumerate(rows) if row in live]
            with torch.inference_mode():
                cache.batch_select_indices(torch.tensor(stay, device=device))
            rows, tokens = [rows[place] for place in stay], [tokens[place] for place in stay]


def _next_best(logits_V: Tensor, row: int, said: Sequence[int], end_id: int, may_say: Permission) -> int:
    """The likeliest token that may stand in place of the last one of `said`."""
    before = list(said[:-1])
    for count in (min(FEW, len(logits_V)), len(logits_V)):
        for token in logits_V.topk(count).indices.tolist():
            if may_say(row, [*before, token]):
                return int(token)
    return end_id
