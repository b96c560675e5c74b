"""Exposure against error: how often training captions name an attack, and how often it is accepted."""

import pytest

from ifas.evaluation.exposure import exposure_against_error


def entries(**values: float) -> dict[str, dict[str, object]]:
    return {name: {"value": v, "n": 20, "interval": [0.0, 1.0]} for name, v in values.items()}


def test_rank_correlation_by_hand() -> None:
    counts = {k: {"captions": 50, "right_medium": n} for k, n in {"a": 40, "b": 30, "c": 20, "d": 10}.items()}
    falling = exposure_against_error(counts, entries(a=0.1, b=0.2, c=0.3, d=0.4))
    assert falling["spearman"]["rho"] == pytest.approx(-1)
    # Ranks 4 3 2 1 against 1 3 2 4: 1 - 6 * (9 + 0 + 0 + 9) / (4 * 15) = -0.8
    mixed = exposure_against_error(counts, entries(a=0.1, b=0.3, c=0.2, d=0.4))
    assert mixed["spearman"]["rho"] == pytest.approx(-0.8)
    assert [r["right"] for r in mixed["rows"]] == [40, 30, 20, 10]


def test_too_little_to_correlate() -> None:
    counts = {"a": {"captions": 9, "right_medium": 9}}
    found = exposure_against_error(counts, {**entries(a=0.5, b=0.1), "c": {"value": None, "n": 0}})
    assert found["spearman"] is None
    assert [(r["species"], r["right"]) for r in found["rows"]] == [("a", 9), ("b", 0)]
