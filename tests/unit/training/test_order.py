"""Draws, augmentation, learning rate: functions of seed and position only."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ifas.faces.boxes import iou
from ifas.faces.face import Face
from ifas.faces.handling import DRAWN, Bars, Border, Cropped, Jpeg
from ifas.faces.views import Square, cut, square
from ifas.training.augment import BRIGHTNESS, FARTHEST, MIN_SIDE, augmentation
from ifas.training.sampling import Draws, Sampler
from ifas.training.schedule import lr_factor

CLASSES = ["live"] * 11 + ["print"] * 5 + ["replay"] * 2


@given(step=st.integers(0, 50), seed=st.integers(0, 9), window=st.integers(1, 5))
def test_a_window_sorts_by_length_and_keeps_its_samples(step: int, seed: int, window: int) -> None:
    sampler = Sampler(CLASSES, seed=seed, balance=True)
    lengths = [(7 * i) % 11 for i in range(len(CLASSES))]
    draws = Draws(sampler, 4, lengths=lengths, window=window, seed=seed)
    plain = Draws(sampler, 4)
    first = step - step % window
    steps = [draws.step(s) for s in range(first, first + window)]
    assert sorted(p for positions, _ in steps for p in positions) == list(range(4 * first, 4 * (first + window)))
    for positions, samples in steps:
        assert samples == [sampler.draw(p) for p in positions]
    spread = [max(lengths[s] for s in samples) - min(lengths[s] for s in samples) for _, samples in steps]
    unsorted = [plain.step(s)[1] for s in range(first, first + window)]
    assert sum(spread) <= sum(max(lengths[s] for s in b) - min(lengths[s] for s in b) for b in unsorted)
    assert draws.step(step) == Draws(sampler, 4, lengths=lengths, window=window, seed=seed).step(step)


def test_balanced_draws_every_class_equally_often() -> None:
    sampler = Sampler(CLASSES, seed=0, balance=True)
    counts = Counter(CLASSES[sampler.draw(p)] for p in range(300))
    assert set(counts.values()) == {100}


@pytest.mark.parametrize("balance", [True, False])
def test_no_sample_is_drawn_again_before_its_deck_is_through(balance: bool) -> None:
    sampler = Sampler(CLASSES, seed=0, balance=balance)
    draws = [sampler.draw(p) for p in range(60)]
    for group in ({"live"}, {"print"}, {"replay"}) if balance else (set(CLASSES),):
        of_group = [d for d in draws if CLASSES[d] in group]
        size = sum(c in group for c in CLASSES)
        for start in range(0, len(of_group) - size + 1, size):
            assert len(set(of_group[start : start + size])) == size


def test_order_changes_with_the_seed_and_between_epochs() -> None:
    first, second = (Sampler(CLASSES, seed=s, balance=False) for s in (0, 1))
    epoch = [first.draw(p) for p in range(18)]
    assert epoch != [second.draw(p) for p in range(18)]
    assert epoch != [first.draw(p) for p in range(18, 36)]


def test_draws_need_no_history() -> None:
    late = Sampler(CLASSES, seed=4, balance=True)
    early = Sampler(CLASSES, seed=4, balance=True)
    wanted = [early.draw(p) for p in range(200)]
    assert late.draw(199) == wanted[199]


@given(seed=st.integers(0, 99), position=st.integers(0, 10**6), height=st.integers(1, 3000), width=st.integers(1, 3000))
def test_augmentation_is_light_and_repeatable(seed: int, position: int, height: int, width: int) -> None:
    change = augmentation(seed, position, 0.5)
    assert change == augmentation(seed, position, 0.5)
    for kind, far in (("face", 1.0), ("frame", change.distance)):
        left, top, side = change.shifted(kind, Square(10, 20, width))
        beyond = (far - 1) * width / 2 + 1e-6
        assert 10 - beyond <= left <= left + side <= 10 + width + beyond
        assert 20 - beyond <= top <= top + side <= 20 + width + beyond
        assert side >= MIN_SIDE * far * width - 1e-6
    assert 1 <= change.distance <= FARTHEST
    assert abs(change.brightness - 1) <= BRIGHTNESS


def test_from_further_away_the_face_is_smaller_in_the_whole_image_only() -> None:
    """The image stands in the middle of its mirror; nothing of it is lost."""
    picture = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    face = Face(picture, (20.0, 20.0, 20.0, 20.0))
    change = dataclasses.replace(augmentation(0, 0), left=0.0, top=0.0, side=1.0, distance=1.5)
    frame = cut(picture, change.shifted("frame", square(face, "frame", 1.2)), 90)
    assert (frame[15:75, 15:75] == picture).all()
    assert (frame == np.pad(picture, ((15, 15), (15, 15), (0, 0)), "symmetric")).all()
    near = square(face, "face", 1.2)
    assert change.shifted("face", near) == near


def test_recolour_keeps_shape_and_type_and_does_not_wrap_around() -> None:
    picture = np.array([[[[250, 250, 250], [10, 10, 10]]]], np.uint8)
    bright = dataclasses.replace(
        augmentation(0, 0), mirror=False, brightness=1.4, contrast=1.4, tint=(1.1, 1.0, 0.9)
    ).recolour(picture)
    # (250 - 130) * 1.4 + 130 * 1.4 = 350, and (10 - 130) * 1.4 + 182 = 14, each times the tint.
    assert bright.tolist() == [[[[255, 255, 255], [15, 14, 13]]]]
    assert bright.dtype == np.uint8
    dark = dataclasses.replace(
        augmentation(0, 0), mirror=True, brightness=0.5, contrast=1.4, tint=(1.0, 1.0, 1.0)
    ).recolour(picture)
    assert dark.tolist() == [[[[0, 0, 0], [233, 233, 233]]]]


def test_every_class_is_handled_in_the_same_ways_as_often() -> None:
    """Else compression or bars would tell the class, and the model would learn them in place of the attack."""
    sampler = Sampler(CLASSES, seed=0, balance=True)
    drawn: dict[str, Counter[str]] = {name: Counter() for name in set(CLASSES)}
    each = 2000
    for position in range(3 * each):
        change = augmentation(7, position, 0.6)
        ways = [type(one).__name__ for one in change.handlings] + ["further away"] * (change.distance > 1)
        drawn[CLASSES[sampler.draw(position)]].update(ways or ["none"])
    # A draw has one handling in 2 of 3 cases, else two different ones, and is cropped and further away or
    # not whatever it has. 4.5 deviations of a count either way.
    shares = {kind.__name__: 0.6 * (4 / 3) / len(DRAWN) for kind in DRAWN} | {
        "Cropped": 0.6,
        "further away": 0.6,
        "none": 0.4**3,
    }
    for counts in drawn.values():
        assert set(counts) == set(shares)
        for name, share in shares.items():
            assert abs(counts[name] / each - share) < 4.5 * np.sqrt(share * (1 - share) / each), name


def test_strengths_are_spread_and_the_share_of_handled_images_is_kept() -> None:
    drawn = [one for position in range(1500) for one in augmentation(1, position, 1.0).handlings]
    quality = [one.quality for one in drawn if isinstance(one, Jpeg)]
    assert min(quality) < 40
    assert max(quality) > 85
    levels = Counter(one.level for one in drawn if isinstance(one, Border))
    assert levels[0] > 50
    assert levels[255] > 50
    assert len(levels) > 40
    assert {one.beside for one in drawn if isinstance(one, Bars)} == {True, False}
    ratios = [one.ratio for one in drawn if isinstance(one, Cropped)]
    assert min(ratios) < 0.65
    assert max(ratios) > 1.55
    assert abs(sum(ratio < 1 for ratio in ratios) / len(ratios) - 0.5) < 0.06
    assert all(not augmentation(1, position).handlings for position in range(100))
    # Whether an image is handled changes nothing else of its draw.
    plain, handled = augmentation(1, 3), augmentation(1, 3, 1.0)
    assert dataclasses.replace(handled, handlings=(), distance=1.0) == plain


@pytest.mark.parametrize("seed", [0, 1])
def test_the_box_of_a_draw_stays_on_the_face(seed: int) -> None:
    picture = np.full((140, 120, 3), 90, np.uint8)
    picture[40:90, 30:76] = (20, 230, 40)
    shared, boxes = [], set()
    for position in range(60):
        change = augmentation(seed, position, 0.8)
        seen = change.handled(Face(picture, (30, 40, 46, 50)))
        values = seen.picture.astype(int)
        rows, columns = np.nonzero(values[..., 1] - values[..., [0, 2]].max(-1) > 50)
        marker = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        shared.append(iou(seen.box, marker))
        boxes.add(seen.box)
    assert min(shared) > 0.6
    assert np.mean(shared) > 0.8
    assert len(boxes) == 60  # finders differ


def test_learning_rate_warms_up_and_ends_near_zero() -> None:
    factors = [lr_factor(s, steps=100, warmup=0.1) for s in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == pytest.approx(1.0)
    assert factors[9] == factors[10] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0 < factors[-1] < 0.01
    assert lr_factor(0, steps=1, warmup=0.0) == 1.0


def test_one_cycle_is_that_of_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=50, pct_start=0.2)
    for step in range(50):
        assert lr_factor(step, steps=50, warmup=0.2, kind="one-cycle") == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-9
        )
        optimizer.step()
        schedule.step()


@given(weights=st.lists(st.floats(0.05, 8), min_size=18, max_size=18), balance=st.booleans(), seed=st.integers(0, 5))
def test_weights_decide_how_often_a_sample_is_drawn(weights: list[float], balance: bool, seed: int) -> None:
    sampler = Sampler(CLASSES, seed=seed, balance=balance, weights=weights)
    for deck in sampler.decks:
        mine = np.array([weights[i] for i in deck])
        expected = dict(zip(deck.tolist(), mine * len(deck) / mine.sum(), strict=True))
        which = next(n for n, other in enumerate(sampler.decks) if other is deck)
        drawn = Counter(sampler.draw(p * len(sampler.decks) + which) for p in range(len(deck)))
        assert drawn.total() == len(deck)
        for sample, times in expected.items():
            assert np.floor(times - 1e-9) <= drawn[sample] <= np.ceil(times + 1e-9)


def test_equal_weights_draw_everything_once() -> None:
    plain, weighted = (Sampler(CLASSES, seed=1, balance=True, weights=w) for w in (None, [0.7] * len(CLASSES)))
    for which, deck in enumerate(plain.decks):
        for sampler in (plain, weighted):
            drawn = [sampler.draw(p * len(sampler.decks) + which) for p in range(len(deck))]
            assert sorted(drawn) == sorted(deck)


@given(seed=st.integers(0, 5), balance=st.booleans())
def test_a_turn_is_the_number_of_earlier_draws(seed: int, balance: bool) -> None:
    sampler = Sampler(CLASSES, seed=seed, balance=balance)
    before: Counter[int] = Counter()
    for position in range(120):
        sample = sampler.draw(position)
        assert sampler.turn(position) == before[sample]
        before[sample] += 1


def test_with_weights_no_turn_of_a_sample_comes_twice_in_an_epoch() -> None:
    sampler = Sampler(CLASSES, seed=3, balance=False, weights=[5.0] + [1.0] * 17)
    for epoch in range(4):
        turns: dict[int, list[int]] = {}
        for position in range(epoch * 18, (epoch + 1) * 18):
            turns.setdefault(sampler.draw(position), []).append(sampler.turn(position))
        assert len(turns[0]) >= 3
        for of_sample in turns.values():
            assert of_sample == list(range(epoch, epoch + len(of_sample)))
