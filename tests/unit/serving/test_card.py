"""The model card: complete or refused, every figure from a record."""

from __future__ import annotations

import re

import pytest
import yaml

from ifas.core.errors import DataError
from ifas.core.imaging import ImageLimits
from ifas.serving.card import STEPS, cell, figure, render_card
from ifas.serving.settings import ServingSettings
from tests.unit.serving.bento_records import CANDIDATE, THRESHOLD, approval, lineage, metrics, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "model")


def render(model, figures=None, records=None):
    figures = figures or metrics()
    given = approval(model)
    settings = ServingSettings(
        candidate=CANDIDATE,
        model_version=given["model_sha256"][:12],
        model_sha256=given["model_sha256"],
        threshold=THRESHOLD,
        question="?",
        limits=ImageLimits(),
    )
    return render_card(model, settings, given, figures, records or lineage(figures), name="ifas")


def test_front_matter(model):
    front = yaml.safe_load(render(model).split("---\n")[1])
    assert front["license"] == "other"
    assert "synthetic-data" in front["tags"]
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"]["revision"] == "4be1c0ffee"
    assert {m["type"]: m["value"] for m in result["metrics"]} == dict.fromkeys(
        ("hter", "auc", "apcer_max", "bpcer"), 0.125
    )


def test_figures_come_with_interval_and_n(model):
    card = render(model)
    assert "| BPCER | 0.125 (0.043 to 0.312), n = 24 | 0.125 (0.043 to 0.312), n = 24 |" in card
    assert "| replay.phone | 0.250 (0.043 to 0.312), n = 24 |" in card
    assert "| Explanation names the right medium | 0.125 (0.043 to 0.312), n = 24 | not measured: no such" in card
    assert "**0.4625** is live" in card


def test_every_section_and_record_is_there(model):
    card = render(model)
    for title in (
        "Intended use", "Out of scope", "Model", "Training data", "Training procedure", "Evaluation",
        "Limits and risks", "Approval", "Lineage",
    ):  # fmt: skip
        assert f"\n## {title}\n" in card
    for words in ("Synthetic data.", "CC0-1.0", "| kept | 71 |", "| dropped | 29 |", "| alpha | 0.7 |", "margins hold"):
        assert words in card
    for step in STEPS:
        assert f"summary of {step}" in card
    assert approval(model)["model_sha256"] in card
    assert "arXiv 2501.01720" in card


def test_real_data_is_not_called_synthetic(model):
    figures = metrics()
    figures["data"]["synthetic"] = False
    card = render(model, figures)
    assert "ynthetic" not in card


def test_tables_hold_together(model):
    """Text from records can't add a column or a line to a table."""
    rows = [line for line in render(model).splitlines() if line.startswith("|")]
    block: list[int] = []
    for line in render(model).splitlines():
        if line.startswith("|"):
            block.append(len(re.findall(r"(?<!\\)\|", line)))
        else:
            assert len(set(block)) <= 1, line
            block = []
    assert any("terms\\|of X" in row for row in rows)


@pytest.mark.parametrize("step", STEPS)
def test_a_missing_step_is_an_error(model, step):
    figures = metrics()
    with pytest.raises(DataError, match=f"step {step}"):
        render(model, figures, lineage(figures, without=(step,)))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (("threshold",), "metrics.threshold"),
        (("slices", "target"), "metrics.slices.target.hter"),
        (("slices", "source_test", "bpcer"), "metrics.slices.source_test.bpcer"),
        (("data", "synthetic"), "metrics.data.synthetic"),
    ],
)
def test_a_missing_figure_is_an_error(model, path, says):
    figures = metrics()
    tree = figures
    for key in path[:-1]:
        tree = tree[key]
    del tree[path[-1]]
    with pytest.raises(DataError, match=re.escape(says)):
        render(model, figures)


def test_figure_without_interval():
    assert figure({"value": 0.5, "interval": None, "n": 4}) == "0.500, n = 4"
    assert figure({"value": None, "reason": "no attack", "n": 0}) == "not measured: no attack"


def test_cell():
    assert cell("a|b\nc <script>") == "a\\|b c &lt;script>"
