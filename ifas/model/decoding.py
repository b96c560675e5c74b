"""Greedy decoding of a batch behind a KV cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

#: Share of ended rows from which they are dropped from the batch; dropping copies the cache of the other rows.
LEAVE = 0.25


def greedy(
    language: Any, cache: Any, given: Sequence[Sequence[int]], *, end_id: int, limit: int
) -> Iterator[list[tuple[int, int]]]:
    """Greedy decoding: the likeliest next token of every row, until the row ends.

    Each step feeds one token per row, given tokens included. So rows with different numbers of given tokens need no
    padding, and a row's tokens do not depend on the other rows, but for rounding.

    Args:
        language: causal language model.
        cache: of B prompts of one length; it is used up.
        given: B lists of at least one token that the cache has not seen; the answer goes on from them.
        end_id: token that ends a row.
        limit: most tokens of a row, the end token included.

    Yields:
        At each step (row, token) of the rows that wrote one, in the order of the rows. A row's last is the end token,
        or its `limit`th.
    """
    rows = list(range(len(given))) if limit > 0 else []
    written = [0] * len(given)
    live = set(rows)
    tokens = [ids[0] for ids in given]
    device = language.get_input_embeddings().weight.device
    step = 0
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
                new.append((row, tokens[place]))
                written[row] += 1
                if tokens[place] == end_id or written[row] == limit:
                    live.remove(row)
        yield new
        if live and len(rows) - len(live) >= LEAVE * len(rows):
            stay = [place for place, row in enumerate(rows) if row in live]
            with torch.inference_mode():
                cache.batch_select_indices(torch.tensor(stay, device=device))
            rows, tokens = [rows[place] for place in stay], [tokens[place] for place in stay]
