"""Weights of samples in the loss."""

import pytest
from toy_training import config, manifest

from ifas.core.errors import ConfigError
from ifas.training.job import rows_of
from ifas.training.weights import sample_weights

#: Six of each of live, print, replay, then four of the prints again.
ROWS = (*rows_of(manifest()), *[row for row in rows_of(manifest(12)) if row.spoof_type == "print"])


def mass(*overrides: str) -> dict[str, float]:
    """How often a species is drawn, times its weight: its part in the loss."""
    train = config(*overrides).train
    weights = sample_weights(ROWS, train)
    found: dict[str, float] = {}
    for row, weight in zip(ROWS, weights, strict=True):
        n = sum(r.spoof_type == row.spoof_type for r in ROWS)
        drawn = 1 / 3 / n if train.balance else 1 / len(ROWS)
        found[row.spoof_type] = found.get(row.spoof_type, 0.0) + drawn * weight
    return found


def test_by_default_all_weigh_one() -> None:
    assert set(sample_weights(ROWS, config().train)) == {1.0}


@pytest.mark.parametrize("balance", ["true", "false"])
def test_class_balance_gives_bona_fide_half_of_the_loss(balance: str) -> None:
    found = mass("train.class_balance=true", f"train.balance={balance}")
    assert found["live"] == pytest.approx(0.5)
    assert found["print"] + found["replay"] == pytest.approx(0.5)
    # Within the attacks, the sampler decides.
    assert found["print"] / found["replay"] == pytest.approx(1 if balance == "true" else 10 / 6)


def test_species_weights_multiply_and_the_mean_stays_one() -> None:
    found = mass("train.species_weights={print: 3.0}")
    assert found["print"] == pytest.approx(3 * found["replay"])
    assert sum(found.values()) == pytest.approx(1.0)


def test_a_species_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="mannequin"):
        sample_weights(ROWS, config("train.species_weights={mannequin: 2.0}").train)
    with pytest.raises(ConfigError, match="nothing to learn"):
        sample_weights(ROWS, config("train.species_weights={live: 0, print: 0, replay: 0}").train)
