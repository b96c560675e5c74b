"""The baselines of a candidate, and rules that bind them, as a reviewer sees them."""

from __future__ import annotations

import json
import re
from typing import Any

from ifas.evaluation.baselines import measure
from ifas.evaluation.protocol import evaluate
from ifas.promotion.policy import Policy, Rule
from tests.unit.evaluation.tiles import PROTOCOL, TRYING
from tests.unit.review.conftest import SCRIPT, Site

PROBED = Policy(
    name="probed",
    rules=[Rule(id="b", metric="hter", slice="target", max_increase=0.0, against="perfect", reason="beat it")],
)


def test_figures_of_baselines_are_beside_the_candidates(site: Site, judged: Any, candidate: Any) -> None:
    assert "h-baselines" not in site.signed_in().get(f"/candidates/{candidate.id}").text
    _, _, metrics, predictions = judged
    live = predictions.set_index("sample_id")["label"] == "live"
    dev = predictions.loc[predictions["split"] == "dev", "sample_id"]
    threshold = metrics["threshold"]["value"]
    perfect, ranked = (
        measure(predictions, one, threshold=threshold, protocol=PROTOCOL, config=TRYING)
        for one in (live.map({True: 0.8, False: 0.3}), live.map({True: 0.8, False: 0.3}).drop(dev))
    )
    rivals = {"perfect": {"sha256": "ab" * 32, **perfect}, "ranked": {"sha256": SCRIPT, **ranked}}
    (site.root / "metrics.json").write_text(json.dumps({**metrics, "baselines": rivals}))
    found = site.submit(PROBED, name="two")
    page = site.signed_in().get(f"/candidates/{found.id}").text
    section = page[page.index('id="h-baselines"') : page.index('id="h-curves"')]
    for words in ("perfect", "file abababababab", "threshold 0.5", "no threshold", "target domains", "domain kiosk"):
        assert words in section, words
    assert f"{len(dev)} of {len(dev)} dev images without a score" not in section, "kiosk has dev rows, but is no source"
    assert "dev images without a score" in section
    assert SCRIPT not in page
    own = metrics["slices"]["target"]["hter"]["value"]
    assert f">{100 * own:+.1f}<" in section, "the baseline has no error"
    assert re.search(r'class="down">▼ worse', section), "it is worse than a perfect one, surely"
    rules = page[page.index('class="rules') : page.index('id="comments"')]
    assert "target domains, against perfect" in rules
    assert f"baseline perfect 0.0000 on the same pictures: {own:.4f} worse" in rules


def test_images_asked_in_other_ways_are_told(site: Site, judged: Any, candidate: Any) -> None:
    assert "h-modes" not in site.signed_in().get(f"/candidates/{candidate.id}").text
    _, _, metrics, predictions = judged
    rows = predictions[(predictions["split"] == "test") & predictions["score"].notna()]
    asked = rows[["sample_id"]].assign(
        chosen_by_order=json.dumps(["live", "print"]), chosen="print", open_text=SCRIPT, open_says=None
    )
    tree = evaluate(predictions, PROTOCOL, TRYING, None, asked)
    (site.root / "metrics.json").write_text(json.dumps({**metrics, "modes": tree["modes"], "slices": tree["slices"]}))
    page = site.signed_in().get(f"/candidates/{site.submit(name='two').id}").text
    section = page[page.index('id="h-modes"') : page.index('id="h-curves"')]
    assert f"{len(rows)} test images" in section
    assert "Multiple choice changes with the order of the options" in section
    assert section.count("100.0 %") >= 4, "position bias and no open answer, on both sides"
