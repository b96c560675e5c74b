"""A run's report stands alone, says what it must, and shows the figures of the metrics tree and no others."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ifas.core.measures import MEASURES
from ifas.core.taxonomy import SPOOF_TYPES
from ifas.evaluation.predict import Predicted
from ifas.evaluation.protocol import evaluate
from ifas.review import charts, report, shown
from tests.unit.evaluation.tiles import CONFIG, PROTOCOL, TRYING, Pictures

Dataset = tuple[pd.DataFrame, Pictures]
EVIL = '<script>alert("x")</script>'


def render(predictions: pd.DataFrame, dataset: Dataset, out: Path, **changes: Any) -> tuple[str, dict[str, Any]]:
    metrics = changes.pop("metrics", None) or evaluate(predictions, PROTOCOL, CONFIG)
    given = {
        "run_id": "r-17",
        "model_version": "0123abcd",
        "lineage_facts": {"train": {"steps": 120}, "ingest": "f00"},
        "config": CONFIG,
        "out": out,
    }
    report.render_report(metrics, predictions, dataset[1], dataset[0], **{**given, **changes})
    return out.read_text(), metrics


class Page(HTMLParser):
    """Tags with their attributes and what they lie in, the text, and the cells of every table row."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.around: list[dict[str, str | None]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.around.append(self.tags[-1][1] if self.tags else {})
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag: str) -> None:
        self.cell = self.cell and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "style":
            return
        self.text += data
        if self.cell:
            self.rows[-1][-1] += data


def test_figures_are_those_of_the_metrics(predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path) -> None:
    html, metrics = render(predictions, dataset, tmp_path / "report.html")
    text = re.sub(r"\s+", " ", Page(html).text)
    rows = {row[0]: row[1:] for row in Page(html).rows if row}
    for name, measure in MEASURES.items():
        for side, cell in zip(("target", "source_test"), rows[measure.title], strict=False):
            value = metrics["slices"][side][name]["value"]
            if value is None:
                assert cell.startswith("not measured: "), (side, name, cell)
                continue
            written = f"{value:.3f} " if name in shown.PLAIN else f"{100 * value:.1f} % "
            assert cell.startswith(written), (side, name, cell)
            entry = metrics["slices"][side][name]
            if entry.get("interval"):
                low, high = (f"{v:.3f}" if name in shown.PLAIN else f"{100 * v:.1f}" for v in entry["interval"])
                assert f" {low} to {high} " in cell
            counted = entry.get("errors", entry.get("hits"))
            assert cell.endswith(f" n = {entry['n']}" if counted is None else f" {counted} of {entry['n']}")
    worst = metrics["slices"]["target"]["apcer_max"]
    assert f"{worst['errors']} of {worst['n']} images, species {worst['species']}" in text
    low, high = worst["interval"]
    assert f"95 % interval {100 * low:.1f} to {100 * high:.1f}" in text
    pooled = metrics["slices"]["target"]["apcer_pooled"]
    assert f"the model accepts {pooled['errors']} of {pooled['n']} attacks and turns away" in text
    for word in ("r-17", "0123abcd", "steps", "f00", "Bona fide presentation classification error rate"):
        assert word in text


def test_flips_are_shown_for_each_handling(trial: Predicted, dataset: Dataset, tmp_path: Path) -> None:
    metrics = evaluate(trial.frame, PROTOCOL, TRYING, trial.handled)
    html, _ = render(trial.frame, dataset, tmp_path / "r.html", metrics=metrics, config=TRYING)
    rows = {row[0]: row[1:] for row in Page(html).rows if len(row) == 5}
    for name in TRYING.robustness.handlings:
        figures = metrics["slices"][f"handling:{name}"]
        measures = ("flips", "flips_to_live", "flips_to_spoof", "handled_non_response")
        for measure, cell in zip(measures, rows[name], strict=True):
            entry = figures[measure]
            if entry["value"] is None:
                assert cell.startswith("not measured: ")
            else:
                assert cell.startswith(f"{100 * entry['value']:.1f} % ")
                assert cell.endswith(f" {entry['errors']} of {entry['n']}")
    without, _ = render(trial.frame, dataset, tmp_path / "w.html")
    assert "no image was tried (evaluate.robustness)" in without


def test_tables_of_attacks_named_and_of_cues(predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path) -> None:
    html, metrics = render(predictions, dataset, tmp_path / "report.html")
    rows, target = Page(html).rows, metrics["slices"]["target"]
    for kind, said in target["attacks_named"].items():
        cells = [row[1:-1] for row in rows if row[0] == ("bona fide" if kind == "live" else kind)]
        assert [str(said[one]) for one in SPOOF_TYPES] in cells
    for cue, counts in target["cues"].items():
        assert [cue, *(str(counts[key]) for key in ("measured", "claimed", "both"))] in rows
    assert re.search(r"named: (print|replay|mask) \(0\.75\)", Page(html).text)


def test_synthetic_banner(predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path) -> None:
    banner = "they prove that the chain works, not how good the model is on real attacks"
    assert banner in render(predictions, dataset, tmp_path / "a.html")[0]
    real = dataset[0].assign(synthetic=False)
    assert banner not in render(predictions.assign(synthetic=False), (real, dataset[1]), tmp_path / "b.html")[0]
    # One synthetic picture among the training data is enough.
    real.loc[0, "synthetic"] = True
    assert banner in render(predictions.assign(synthetic=False), (real, dataset[1]), tmp_path / "c.html")[0]


def test_loads_nothing_and_is_accessible(predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path) -> None:
    html, _ = render(predictions, dataset, tmp_path / "report.html")
    page = Page(html)
    assert "default-src 'none'" in html
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith(("data:image/jpeg;base64,", "#"))
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images
    assert all(image["alt"] for image in images)
    drawn = [around for (tag, _), around in zip(page.tags, page.around, strict=True) if tag == "svg"]
    assert len(drawn) == 11  # no image was handled
    for around in drawn:
        assert around["role"] == "img"
        assert around["aria-label"]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    idents = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(idents) == len(set(idents))
    # Right and wrong are said in words, not by colour alone.
    assert "✗ wrong: accepted as live" in page.text
    assert "✓ right: rejected as an attack" in page.text


def test_text_from_outside_is_escaped(predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path) -> None:
    predictions["explanation"] = predictions["explanation"].mask(predictions["explanation"].notna(), EVIL)
    predictions["device"] = EVIL
    html, _ = render(predictions, dataset, tmp_path / "r.html", run_id=EVIL, lineage_facts={EVIL: [EVIL]})
    assert EVIL not in html
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 5


def test_thumbnails_and_size(predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (900, 1200, 3), dtype=np.uint8)).save(buffer, "PNG")
    uri = report.thumbnail(buffer.getvalue())
    small = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert (small.format, max(small.size)) == ("JPEG", 200)
    html, _ = render(predictions, dataset, tmp_path / "report.html", lineage_facts={"log": ["line"] * 10**6})
    assert len(html) < 4_000_000
    assert "the rest is in lineage.json" in html


def test_pictures_over_the_budget_are_left_out_and_said(
    predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "PICTURE_BUDGET", 5_000)
    html, _ = render(predictions, dataset, tmp_path / "report.html")
    assert "did not fit on the page" in html
    assert 0 < html.count("<img") < CONFIG.gallery


def test_slices_without_a_class_still_give_a_page(predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path) -> None:
    keep = (predictions["split"] == "dev") | ((predictions["domain"] == "office") & (predictions["label"] == "live"))
    html, _ = render(predictions[keep], dataset, tmp_path / "report.html")
    assert "No curve" in html
    assert "not measured: no attack image in this slice" in html


def test_where_there_is_no_interval_it_says_why(predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path) -> None:
    metrics = evaluate(predictions, PROTOCOL, CONFIG.model_copy(update={"bootstrap": 0}))
    html, _ = render(predictions, dataset, tmp_path / "report.html", metrics=metrics)
    assert "no interval: the bootstrap is switched off (evaluate.bootstrap)" in html


def test_interrupted_writing_leaves_the_old_page(predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("old")
    with pytest.raises(TypeError):
        render(predictions, dataset, out, lineage_facts={"bad": object()})
    assert out.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_exposure_is_shown_beside_the_error(predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path) -> None:
    species = sorted(predictions.loc[predictions["label"] == "spoof", "pai_species"].unique())
    counts = {s: {"captions": 40 + i, "right_medium": 30 + i} for i, s in enumerate(species)}
    facts = {"validate": {"exposure": {"species": counts}}}
    html, _ = render(predictions, dataset, tmp_path / "a.html", lineage_facts=facts)
    assert "Are attacks that training captions seldom name missed more often?" in html
    assert [species[0], "40", "30"] in [row[:3] for row in Page(html).rows]
    html, _ = render(predictions, dataset, tmp_path / "b.html", lineage_facts={"validate": "x"})
    assert "seldom name" not in html


def test_the_champion_is_shown_where_there_is_one(predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path) -> None:
    html, metrics = render(predictions, dataset, tmp_path / "a.html")
    assert "champion" not in Page(html).text
    bpcer = {"value": -0.05, "interval": [-0.1, 0.02], "champion": 0.25, "n": 12, "n_subjects": 6}
    paired = {"slices": {"target": {"bpcer": bpcer, "apcer": {"print.a4": bpcer}}}}
    metrics["against_champion"] = {"candidate": "0a1b2c3d4e5f", "model": "m", **paired}
    page = Page(render(predictions, dataset, tmp_path / "b.html", metrics=metrics)[0])
    ours = f"{100 * metrics['slices']['target']['bpcer']['value']:.1f} %"
    assert ["BPCER", ours, "25.0 %", "−5.0 −10.0 to +2.0"] in page.rows
    assert "0a1b2c3d4e5f, the model in use" in page.text


def test_right_verdicts_with_wrong_words_are_shown_and_no_picture_twice(
    predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path
) -> None:
    prints = (predictions["split"] == "test") & (predictions["pai_species"] == "print.a4")
    predictions.loc[prints, "spoof_type_named"] = "mask"
    html, _ = render(predictions, dataset, tmp_path / "r.html")
    assert "Names mask, shown was print" in html
    pictures = re.findall(r'<img src="([^"]+)"', html)
    assert len(pictures) == len(set(pictures)) <= CONFIG.gallery


def test_what_is_not_released_is_not_shown(predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path) -> None:
    metrics = evaluate(predictions, PROTOCOL, CONFIG)
    predictions["status"] = "quarantined"
    html, _ = render(predictions, dataset, tmp_path / "r.html", metrics=metrics)
    assert "No curve" in html
    assert "<img" not in html


def test_a_refused_picture_is_left_out_and_said(predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path) -> None:
    broken = Pictures({name: [b"no picture"] * len(rows) for name, rows in dataset[1].shards.items()})
    html, _ = render(predictions, (dataset[0], broken), tmp_path / "r.html")
    assert "<img" not in html
    assert f"{html.count('no picture here')} picture(s) could not be decoded" in html


def test_a_drawing_that_fails_leaves_the_rest(
    predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise ValueError("no")

    monkeypatch.setattr(charts, "roc", fails)
    predictions["score"] *= 0.99  # so that nothing was drawn of it before
    html, _ = render(predictions, dataset, tmp_path / "r.html")
    assert html.count("could not be drawn") == 1
    assert html.count("<svg") == 10


@pytest.mark.slow
def test_a_million_predictions_take_seconds_and_no_larger_page(
    predictions: pd.DataFrame, dataset: Dataset, tmp_path: Path
) -> None:
    """All of them explained, with scores and texts of their own; 2,000 devices."""
    metrics = evaluate(predictions, PROTOCOL, CONFIG)
    times = -(-1_000_000 // len(predictions))
    many = pd.concat([predictions] * times, ignore_index=True)
    rng = np.random.default_rng(0)
    many["score"] = np.clip(many["score"] + rng.normal(0, 0.02, len(many)), 0, 1)
    many["explanation"] = "A mask, " + many.index.astype(str)
    metrics["slices"] |= {f"device:cam-{i}": metrics["slices"]["domain:kiosk"] for i in range(2_000)}
    before = process_time()
    html, _ = render(many, dataset, tmp_path / "r.html", metrics=metrics)
    assert process_time() - before < 60
    assert len(html) < 4_000_000
    assert "more slices are in the table only" in html
    assert "device cam-1999" in html
