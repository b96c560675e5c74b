"""Weight of each training sample in the loss, by its class and its spoof type."""

from __future__ import annotations

from collections import Counter

from ifas.core.config import TrainConfig
from ifas.core.errors import ConfigError
from ifas.training.job import Row


def drawn_shares(rows: tuple[Row, ...], config: TrainConfig) -> dict[str, float]:
    """Spoof type, or `live` -> share of the draws: equal ones, or by the number of rows."""
    species = Counter(row.spoof_type for row in rows)
    return {s: 1 / len(species) if config.balance else n / len(rows) for s, n in species.items()}


def sample_weights(rows: tuple[Row, ...], config: TrainConfig) -> tuple[float, ...]:
    """A weight per row, 1 on average over the draws.

    `class_balance` makes bona fide and attacks weigh the same in sum, however often the sampler draws them;
    `species_weights` then multiplies spoof types (or `live`) as it says.

    Raises:
        ConfigError: a spoof type in `species_weights` that no row has, or weights that leave nothing to learn from.
    """
    drawn = drawn_shares(rows, config)
    species = list(drawn)
    if unknown := sorted(set(config.species_weights) - set(species)):
        raise ConfigError(
            f"train.species_weights names {', '.join(unknown)}, which no training row is",
            f"the rows are: {', '.join(sorted(species))}",
        )
    weight = {s: config.species_weights.get(s, 1.0) for s in species}
    if config.class_balance:
        for live in (True, False):
            members = [s for s in species if (s == "live") == live]
            mass = sum(drawn[s] * weight[s] for s in members)
            for s in members:
                weight[s] = weight[s] * 0.5 / mass if mass else 0.0
    mean = sum(drawn[s] * weight[s] for s in species)
    if not mean:
        raise ConfigError("train.species_weights leaves nothing to learn from: all weights are 0", "give one above 0")
    return tuple(weight[row.spoof_type] / mean for row in rows)
