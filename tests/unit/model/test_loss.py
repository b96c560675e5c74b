"""L-LM against a plain reference, and its independence of splits and padding."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ifas.model.loss import INTERPRETATION, JUDGMENT, PROMPT, lopsided, lopsided_sums

V = 11


def reference(logits: np.ndarray, targets: np.ndarray, parts: np.ndarray, alpha: float) -> float:
    """alpha * mean NLL of judgment tokens + (1 - alpha) * mean NLL of interpretation tokens."""
    nll: dict[int, list[float]] = {JUDGMENT: [], INTERPRETATION: []}
    for row, target, part in zip(logits, targets, parts, strict=True):
        if part in nll:
            nll[part].append(-(row[target] - math.log(sum(math.exp(x) for x in row))))
    means = {part: sum(values) / len(values) if values else 0.0 for part, values in nll.items()}
    return alpha * means[JUDGMENT] + (1 - alpha) * means[INTERPRETATION]


def sample(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    parts = torch.randint(0, 3, (n,), generator=g)
    parts[0], parts[1] = JUDGMENT, INTERPRETATION
    return torch.randn(n, V, generator=g) * 3, torch.randint(0, V, (n,), generator=g), parts


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0])
def test_equals_the_reference(alpha: float) -> None:
    logits, targets, parts = sample(0, 40)
    sums = lopsided_sums(logits, targets, parts)
    wanted = reference(logits.double().numpy(), targets.numpy(), parts.numpy(), alpha)
    assert lopsided(sums.sums, sums.counts, alpha).item() == pytest.approx(wanted, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    alpha=st.floats(0, 1),
)
def test_any_split_adds_up_to_the_whole(seed: int, n: int, cuts: list[int], alpha: float) -> None:
    """Shares may be micro-batches or ranks, of any size, even without a judgment token or empty."""
    logits, targets, parts = sample(seed, n)
    whole = lopsided_sums(logits, targets, parts)
    edges = [0, *sorted(min(c, n) for c in cuts), n]
    shares = [lopsided_sums(logits[a:b], targets[a:b], parts[a:b]) for a, b in itertools.pairwise(edges)]
    counts = torch.stack([share.counts for share in shares]).sum(0)
    total = sum(lopsided(share.sums, counts, alpha).item() for share in shares)
    assert counts.tolist() == whole.counts.tolist()
    assert total == pytest.approx(lopsided(whole.sums, whole.counts, alpha).item(), abs=1e-4)


def test_a_mean_of_the_shares_means_would_be_wrong() -> None:
    """Guards the test above: the naive combination differs, so it can fail."""
    logits, targets, parts = sample(3, 30)
    halves = [lopsided_sums(logits[s], targets[s], parts[s]) for s in (slice(0, 3), slice(3, 30))]
    naive = np.mean([lopsided(h.sums, h.counts, 0.7).item() for h in halves])
    whole = lopsided_sums(logits, targets, parts)
    assert abs(naive - lopsided(whole.sums, whole.counts, 0.7).item()) > 0.05


def test_padding_and_prompt_count_for_nothing() -> None:
    logits, targets, parts = sample(1, 20)
    whole = lopsided_sums(logits, targets, parts)
    padded = lopsided_sums(
        torch.cat([logits, torch.full((7, V), 50.0)]),
        torch.cat([targets, torch.zeros(7, dtype=torch.long)]),
        torch.cat([parts, torch.full((7,), PROMPT)]),
    )
    assert torch.equal(padded.sums, whole.sums)
    assert torch.equal(padded.counts, whole.counts)


def test_gradients_of_shares_add_up() -> None:
    logits, targets, parts = sample(2, 24)
    leaf = logits.clone().requires_grad_()
    whole = lopsided_sums(leaf, targets, parts)
    lopsided(whole.sums, whole.counts, 0.7).backward()
    split = logits.clone().requires_grad_()
    for a, b in ((0, 5), (5, 6), (6, 24)):
        share = lopsided_sums(split[a:b], targets[a:b], parts[a:b])
        lopsided(share.sums, whole.counts, 0.7).backward()
    assert split.grad is not None
    assert leaf.grad is not None
    torch.testing.assert_close(split.grad, leaf.grad)


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits, targets, parts = sample(4, 200)
    sums = lopsided_sums(logits.bfloat16(), targets, parts)
    assert sums.sums.dtype == torch.float32
    torch.testing.assert_close(sums.sums, lopsided_sums(logits, targets, parts).sums, rtol=2e-2, atol=0)
