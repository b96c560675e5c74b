"""Greedy decoding of a batch, against one row at a time without a cache; the small language model is random."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny

from ifas.model.build import build
from ifas.model.decoding import LEAVE, greedy

PROMPT = 6


@pytest.fixture(scope="module")
def language():
    """With larger weights than fresh ones, under which a model repeats its last token for ever."""
    model = build(tiny(), seed=5)[0].language.eval()
    with torch.no_grad():
        for matrix in (p for p in model.model.layers.parameters() if p.ndim == 2):
            matrix.mul_(10)
    return model


def prompts(count: int, seed: int) -> torch.Tensor:
    return torch.randint(10, 500, (count, PROMPT), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def alone(language, prompt: torch.Tensor, said: Sequence[int], end_id: int, limit: int) -> list[int]:
    """The plain reference: the whole sequence again for every token."""
    written: list[int] = []
    while len(written) < limit and (not written or written[-1] != end_id):
        ids = torch.tensor([[*prompt.tolist(), *said, *written]])
        written.append(int(language(input_ids=ids).logits[0, -1].argmax()))
    return written


class Widths:
    """The language model, and how many rows went through it at each step."""

    def __init__(self, language) -> None:
        self.language, self.seen, self.given = language, [], []

    def get_input_embeddings(self):
        return self.language.get_input_embeddings()

    def get_decoder(self):
        return self._said

    def _said(self, **inputs):
        """Given tokens: nothing is asked about what follows them."""
        self.given.append(inputs["input_ids"].shape)
        return self.language.get_decoder()(**inputs)

    def __call__(self, **inputs):
        self.seen.append(inputs["input_ids"].shape)
        return self.language(**inputs)


@torch.no_grad()
def together(language, prompts_BT, said, end_id: int, limit: int) -> tuple[list[list[int]], list[int]]:
    cache = language(input_ids=prompts_BT, use_cache=True).past_key_values
    watched = Widths(language)
    written: list[list[int]] = [[] for _ in said]
    for step in greedy(watched, cache, said, end_id=end_id, limits=[limit] * len(said)):
        assert [row for row, _ in step] == sorted(row for row, _ in step)
        for row, token in step:
            written[row].append(token)
    assert all(columns == 1 for _, columns in watched.seen)
    common = min(map(len, said)) - 1
    assert watched.given == ([(len(said), common)] if common and limit else [])
    return written, [rows for rows, _ in watched.seen]


@settings(max_examples=25)
@given(
    count=st.integers(1, 9),
    seed=st.integers(0, 10**6),
    ends_at=st.integers(0, 7),
    lengths=st.lists(st.integers(1, 3), min_size=9, max_size=9),
)
def test_a_batch_is_decoded_as_each_row_alone(language, count, seed, ends_at, lengths) -> None:
    """Whatever the rows' lengths: the end token is one that some row writes early and others late or never."""
    limit = 8
    starts = prompts(count, seed)
    said = [[20 + row + n for n in range(lengths[row])] for row in range(count)]
    end_id = alone(language, starts[0], said[0], -1, limit)[ends_at]
    wanted = [alone(language, prompt, ids, end_id, limit) for prompt, ids in zip(starts, said, strict=True)]
    written, widths = together(language, starts, said, end_id, limit)
    assert written == wanted
    common = min(map(len, said)) - 1
    steps = max(len(ids) - common + len(words) - 1 for ids, words in zip(said, wanted, strict=True))
    assert len(widths) == steps, "no step more"


def test_rows_that_ended_leave_the_batch(language) -> None:
    """Rows of one prompt end together: the end token is one of theirs that the other prompt does not write."""
    starts = prompts(2, seed=3)
    first, other = (alone(language, prompt, [20], -1, 10) for prompt in starts)
    end_id = next(token for token in first if token not in other)
    ends = first.index(end_id) + 1
    assert ends < 10
    rows = torch.cat([starts[:1].expand(2, -1), starts[1:].expand(6, -1)])
    written, widths = together(language, rows, [[20]] * 8, end_id, 10)
    assert written == [first[:ends]] * 2 + [other] * 6
    assert LEAVE <= 2 / 8
    assert widths == [8] * ends + [6] * (10 - ends)


def test_a_few_ended_rows_stay(language) -> None:
    """Dropping one row of eight would cost more than it saves; what it decodes after its end is ignored."""
    starts = prompts(2, seed=3)
    first, other = (alone(language, prompt, [20], -1, 10) for prompt in starts)
    end_id = next(token for token in first if token not in other)
    rows = torch.cat([starts[:1], starts[1:].expand(7, -1)])
    written, widths = together(language, rows, [[20]] * 8, end_id, 10)
    assert written == [first[: first.index(end_id) + 1]] + [other] * 7
    assert widths == [8] * 10


def test_no_tokens_allowed(language) -> None:
    assert together(language, prompts(2, 0), [[20], [21]], 2, 0) == ([[], []], [])
