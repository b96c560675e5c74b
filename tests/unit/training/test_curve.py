"""When a training leaves the plateau on which a model only knows how often bona fide and attacks are drawn."""

import math

import numpy as np
import pytest

from ifas.training.curve import left_plateau

#: Of a quarter bona fide.
ENTROPY = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))


def curve(judgments: list[float]) -> list[dict[str, float]]:
    return [{"step": i, "judgment": value} for i, value in enumerate(judgments, 1)]


def test_the_step_at_which_the_smoothed_loss_falls() -> None:
    lines = curve([1.2, 0.9, *[ENTROPY + 0.01] * 30, *[ENTROPY - 0.2] * 30])
    # One of eight steps at -0.2 outweighs seven at +0.01.
    assert left_plateau(lines, 0.25) == 33
    assert left_plateau(lines, 0.25, window=1) == 33
    # At the even shares of other draws, the same losses are all below.
    assert left_plateau(curve([ENTROPY + 0.01] * 9), 0.5) == 1


def test_noise_and_a_dip_that_comes_back_do_not_count() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 60)
    flat = [ENTROPY + 0.02 + n for n in noise]
    lines = curve([*flat, *[0.1] * 12, *[ENTROPY + 0.5] * 12, *[0.2] * 40])
    found = left_plateau(lines, 0.25)
    assert found is not None
    assert 84 < found <= 84 + 8


@pytest.mark.parametrize("judgments", [[], [2.0] * 20, [0.1] * 20 + [2.0] * 8])
def test_never(judgments: list[float]) -> None:
    assert left_plateau(curve(judgments), 0.25) is None


def test_batches_that_were_left_out_have_no_loss() -> None:
    lines = [{"step": 1, "skipped": ["a"]}, {"step": 2, "judgment": 0.1}, {"step": 3, "skipped": ["a"]}]
    assert left_plateau(lines, 0.25) == 2
