"""Exposure against error: how often training captions name an attack, and how often it is accepted."""

from pathlib import Path

import pandas as pd
import pytest

from ifas.evaluation.exposure import exposure_against_error
from tests.unit.evaluation.test_evaluation_report import Dataset, render


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


def test_the_report_shows_it(predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path) -> None:
    species = sorted(predictions.loc[predictions["label"] == "spoof", "pai_species"].unique())
    counts = {s: {"captions": 40 + i, "right_medium": 30 + i} for i, s in enumerate(species)}
    facts = {"validate": {"exposure": {"species": counts}}}
    html, _ = render(predictions, dataset, tmp_path / "a.html", lineage_facts=facts)
    assert "Are attacks that training captions seldom name missed more often?" in html
    assert "<td>40</td><td>30</td>" in html
    html, _ = render(predictions, dataset, tmp_path / "b.html", lineage_facts={"validate": "x"})
    assert "seldom name" not in html
