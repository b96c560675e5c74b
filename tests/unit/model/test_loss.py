"""L-LM against a plain reference, and its independence of splits and padding."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ifas.model.loss import INTERPRETATION, JUDGMENT, PROMPT, LossSums, answer_nll, lopsided, part_sums, plain

V = 11


def lopsided_sums(logits: torch.Tensor, targets: torch.Tensor, parts: torch.Tensor) -> LossSums:
    """Sums of one sample whose logits are given: the head is the identity."""
    eye = torch.eye(V, dtype=logits.dtype)
    return part_sums(answer_nll(logits, eye, None, targets), parts, torch.zeros(len(targets), dtype=torch.long), 1)


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


@settings(max_examples=60)
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


def head(
    seed: int, n: int, width: int = 6, vocabulary: int = 31, dtype: torch.dtype = torch.float64
) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = ((n, width), (vocabulary, width), (vocabulary,))
    made = [torch.randn(*shape, generator=g, dtype=dtype).requires_grad_() for shape in shapes]
    return [*made, torch.randint(0, vocabulary, (n,), generator=g)]


@pytest.mark.parametrize("trained", [("hidden",), ("hidden", "head"), ("hidden", "head", "bias"), ("head",)])
@pytest.mark.parametrize("bias", [True, False])
def test_chunks_give_the_losses_and_gradients_of_the_naive_form(trained: tuple[str, ...], bias: bool) -> None:
    hidden, weight, offset, targets = head(0, 23)
    names = {"hidden": hidden, "head": weight, "bias": offset}
    for name, tensor in names.items():
        tensor.requires_grad_(name in trained)
    outer = torch.rand(23, dtype=torch.float64)
    b = offset if bias else None
    wanted = F.cross_entropy(F.linear(hidden, weight, b), targets, reduction="none")
    got = answer_nll(hidden, weight, b, targets, chunk_elements=31 * 4)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    used = [names[name] for name in trained if bias or name != "bias"]
    for mine, theirs in zip(
        torch.autograd.grad((outer * got).sum(), used),
        torch.autograd.grad((outer * wanted).sum(), used),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 40), chunk=st.integers(1, 2000))
def test_the_size_of_a_chunk_changes_nothing(seed: int, n: int, chunk: int) -> None:
    hidden, weight, offset, targets = head(seed, n)
    results = []
    for size in (chunk, 10**9):
        nll = answer_nll(hidden, weight, offset, targets, chunk_elements=size)
        results.append([nll, *torch.autograd.grad(nll.sum(), [hidden, weight, offset])])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_no_answer_at_all_has_no_loss() -> None:
    hidden, weight, _, targets = head(0, 0)
    nll = answer_nll(hidden, weight, None, targets)
    sums = part_sums(nll, targets, targets, 3)
    assert sums.sums_B2.tolist() == [[0.0, 0.0]] * 3
    assert lopsided(sums.sums, sums.counts, 0.7).item() == 0.0


def test_samples_keep_their_own_sums() -> None:
    logits, targets, parts = sample(5, 12)
    samples = torch.tensor([0, 0, 0, 2, 2, 2, 2, 1, 1, 1, 0, 2])
    sums = part_sums(answer_nll(logits, torch.eye(V), None, targets), parts, samples, 3)
    for index in range(3):
        own = samples == index
        alone = lopsided_sums(logits[own], targets[own], parts[own])
        torch.testing.assert_close(sums.sums_B2[index], alone.sums)
        assert torch.equal(sums.counts_B2[index], alone.counts)


def test_a_weight_of_two_is_the_sample_twice() -> None:
    logits, targets, parts = sample(6, 16)
    samples = torch.arange(16) % 4
    nll = answer_nll(logits, torch.eye(V), None, targets)
    sums = part_sums(nll, parts, samples, 4)
    weights = torch.tensor([1.0, 2.0, 1.0, 0.0])
    counts = weights @ sums.counts_B2
    twice = torch.cat([torch.arange(16)[samples != 3], torch.arange(16)[samples == 1]])
    repeated = part_sums(nll[twice], parts[twice], torch.zeros(len(twice), dtype=torch.long), 1)
    assert lopsided(sums.weighted(weights), counts, 0.7).item() == pytest.approx(
        lopsided(repeated.sums, repeated.counts, 0.7).item(), rel=1e-6
    )


def test_small_weights_are_normalised_by_their_sum() -> None:
    """Weighted counts below one are divided by all the same."""
    logits, targets, parts = sample(7, 16)
    sums = lopsided_sums(logits, targets, parts)
    small = torch.tensor([1e-3])
    assert lopsided(sums.weighted(small), small @ sums.counts_B2, 0.7).item() == pytest.approx(
        lopsided(sums.sums, sums.counts, 0.7).item(), rel=1e-5
    )


def test_the_plain_loss_is_one_mean_over_all_tokens() -> None:
    logits, targets, parts = sample(8, 40)
    sums = lopsided_sums(logits, targets, parts)
    kept = parts != PROMPT
    assert plain(sums.sums, sums.counts, 0.7).item() == pytest.approx(
        F.cross_entropy(logits[kept], targets[kept]).item(), rel=1e-6
    )
