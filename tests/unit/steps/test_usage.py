"""What a step used, its price, and the budget that stops a run before it trains."""

from __future__ import annotations

import re

import pytest

from ifas.core.config import load
from ifas.core.errors import ConfigError
from ifas.core.records import Lineage, LineageEntry, Usage
from ifas.steps.folder import write_report
from ifas.steps.usage import KFP_RUN_ID, check_budget, metered, reserved_by

PRICES = ("cluster.prices={cpu: 0.05, gib: 0.01, gpu: 2}",)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    for name in (KFP_RUN_ID, "RAY_ADDRESS", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


def entry(step, usage=None, **fields):
    plain = {"config": "c", "code": "d", "inputs": {}, "outputs": {}, "summary": "s", "facts": {}, "image": "i"}
    return LineageEntry(step=step, started="2026-01-01T00:00:00", seconds=1, usage=usage, **plain, **fields)


def usage(price=1.0, **fields):
    return Usage(**{"cpu_hours": 2, "gpu_hours": 3, "peak_memory_gib": 4, "currency": "EUR", **fields}, price=price)


def test_on_this_machine_cpu_time_counts():
    used = metered("validate", load("tiny", list(PRICES)))
    total = sum(n * n for n in range(2_000_000))
    found = used()
    assert total
    assert found.cpu_hours > 0
    assert found.gpu_hours == 0
    assert found.peak_memory_gib > 0.01
    assert found.currency == "EUR"


def test_in_a_pod_what_it_reserves_is_paid(monkeypatch):
    cluster = load("large").cluster
    monkeypatch.setenv(KFP_RUN_ID, "r")
    assert reserved_by("evaluate", cluster) == (8, 96, 1)
    for nowhere in ("", "local"):
        monkeypatch.setenv("RAY_ADDRESS", nowhere)
        assert reserved_by("train", cluster) == (0.25, 0.5, 0)  # the pod that watches the job, or needs none
    # A RayJob's driver is on the head, and the workers are paid for as well.
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert reserved_by("train", cluster) == (8 + 8 * 12, 48 + 8 * 96, 8)


def test_the_price_of_an_hour(monkeypatch):
    monkeypatch.setenv(KFP_RUN_ID, "r")
    now = iter((0.0, 1800.0))
    monkeypatch.setattr("ifas.steps.usage.time.monotonic", lambda: next(now))
    found = metered("evaluate", load("large", list(PRICES)))()
    assert (found.cpu_hours, found.gpu_hours) == (4, 0.5)
    assert found.price == pytest.approx(0.5 * (8 * 0.05 + 96 * 0.01 + 1 * 2))


@pytest.mark.parametrize(("budget", "enough"), [(0, True), (99, True), (98, False)])
def test_a_budget_that_training_may_exceed_stops_the_run(budget, enough):
    """An hour of 104 CPUs, 816 GiB and 8 GPUs costs 29.36, and there are two attempts; 40 were spent before."""
    config = load("large", [*PRICES, "cluster.train.active_deadline_s=3600", f"cluster.budget={budget}"])
    lineage = Lineage(run_id="r").append(entry("caption", usage(40.0)))
    if enough:
        check_budget(config, lineage)
        if budget:
            with pytest.raises(ConfigError, match=r"41\.00 are spent"):
                check_budget(config, lineage, failed=1.0)
        return
    with pytest.raises(ConfigError) as caught:
        check_budget(config, lineage)
    for said in ("58.72 EUR", "2 h of 104 CPUs", "8 GPUs", "40.00 are spent", "budget is 98.00"):
        assert said in caught.value.what
    assert "cluster.budget" in caught.value.fix


def test_a_lineage_of_before_there_was_usage_is_still_whole():
    old = entry("ingest").sealed("").model_dump(exclude={"usage"})
    Lineage(run_id="r", entries=[LineageEntry.model_validate(old)]).verify()
    changed = entry("ingest", usage()).sealed("").model_copy(update={"usage": usage(0.0)})
    with pytest.raises(Exception, match="altered"):
        Lineage(run_id="r", entries=[changed]).verify()


def test_the_report_shows_costs_by_step(tmp_path):
    lineage = Lineage(run_id="r").append(entry("caption", usage())).append(entry("train", usage(7.5), reused="same"))
    (tmp_path / "page.html").write_text("<html><main><p>x</p></main></html>")
    write_report(tmp_path / "page.html", lineage, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert text.startswith("<html><main><p>x</p><section")
    assert re.search(r"</section>\s*</main></html>$", text)
    assert re.search(r">train <span[^>]*>reused<", text)
    assert '<th scope="col" class="r">EUR</th>' in text
    (total,) = re.findall(r"<tfoot>.*</tfoot>", text, re.DOTALL)
    assert re.findall(r"<td[^>]*>([^<]*)</td>", total) == ["2.0 s", "4.000", "6.000", "4.00", "8.50"]
    write_report(tmp_path / "page.html", Lineage(run_id="r").append(entry("ingest")), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == (tmp_path / "page.html").read_text()
