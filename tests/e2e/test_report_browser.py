"""The validation report in a real browser: one file, no network, with pictures."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from ifas.core.files import read_json
from ifas.core.manifest import MANIFEST_FILE, PREVIOUS_MANIFEST_FILE, read_manifest
from ifas.steps.execute import execute

CHROMIUM = shutil.which("chromium")
#: A root user has no sandbox; the rest keeps Chromium from asking servers for anything.
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def report(registry, tmp_path_factory) -> Path:
    """The report of the drawn dataset after a person's label was changed and evidence speaks against two others."""
    from ifas.core.config import load

    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IFAS_HOME", str(root / "home"))
        config = load("tiny", [f"ingest.registry={registry.path}", "ingest.dataset=toy"])
        out = {name: root / name for name in ("dataset", "captions", "validation")}
        line = {"lineage": root / "lineage-0"}
        execute("ingest", config, run_id="r", inputs={}, outputs={"dataset": out["dataset"], **line})
        inputs = {"dataset": out["dataset"], **line}
        execute("caption", config, run_id="r", inputs=inputs,
                outputs={"captions": out["captions"], "lineage": root / "lineage-1"})  # fmt: skip
        edited = root / "edited"
        shutil.copytree(out["captions"], edited)
        rows = read_manifest(edited, captioned=True)
        rows.loc[rows.index[:2], "label_audit"] = json.dumps([{"specialist": "border", "says": "a <b>sheet</b>"}])
        rows.to_parquet(edited / MANIFEST_FILE, index=False)
        dataset = root / "with-previous"
        shutil.copytree(out["dataset"], dataset)
        before = read_manifest(dataset)
        changed = before.index[before["label"] == "live"][0]
        before.loc[changed, ["label", "spoof_type", "pai_species"]] = ["spoof", "mask", "mask.rigid3d"]
        before.iloc[:-4].to_parquet(dataset / PREVIOUS_MANIFEST_FILE, index=False)
        inputs = {"dataset": dataset, "captions": edited, "lineage": root / "lineage-1"}
        execute("validate", config, run_id="r", inputs=inputs,
                outputs={"validation": out["validation"], "lineage": root / "lineage-2"})  # fmt: skip
    return out["validation"]


def test_results_hold_the_audits_and_the_weights(report: Path) -> None:
    audits = {one["id"]: one for one in read_json(report / "results.json")["sections"]}
    assert {"exposure", "release-status", "label-audit", "drift", "domain-leakage", "triggers"} <= set(audits)
    assert audits["label-audit"]["contradicted"] == 2
    assert audits["drift"]["relabelled"] == 1
    assert audits["drift"]["came"] == 4
    weights = pd.read_parquet(report / "sampling_weights.parquet")
    assert weights["sample_id"].is_unique
    assert (weights["weight"] > 0).all()


@pytest.mark.slow
def test_in_a_browser(report: Path, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "the report is checked in a real browser: apt-get install -y chromium"
    page_file = report / "report.html"
    assert page_file.stat().st_size < 3_000_000
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        for width in (1200, 400):
            page = browser.new_page(viewport={"width": width, "height": 900}, java_script_enabled=True)
            said, asked = [], []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(page_file.as_uri())
            assert page.get_by_role("heading", level=1).inner_text() == "May these data train a model?"
            assert page.get_by_role("status").inner_text().startswith("✓ PASSED")
            for title in ("Labels that the image contradicts", "What changed since the revision before"):
                assert page.get_by_role("heading", name=title).is_visible()
            assert page.get_by_text("a <b>sheet</b>").first.is_visible()
            pictures = page.locator("img")
            assert pictures.count() >= 3
            shown = pictures.evaluate_all("all => all.map(one => one.complete && one.naturalWidth > 0 && !!one.alt)")
            assert all(shown)
            assert page.locator("table").count() >= 5
            # Nothing leaves the page at the side, except inside of what scrolls.
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            assert said == []
            assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
            page.screenshot(path=str(tmp_path / f"report-{width}.png"), full_page=True)
            page.close()
        browser.close()
