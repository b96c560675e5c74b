"""The same step through two callers: in this process, and as kfp.local subprocesses."""

import json

import pytest
from ifas_pipelines.local import run_local

from ifas.core.records import Lineage
from ifas.steps.chain import run_chain
from ifas.steps.folder import gather, last_lineage, output_of

DETERMINISTIC = ("ingest", "caption", "validate")


@pytest.mark.slow
def test_in_process_and_kfp_local_agree(config, tmp_path, monkeypatch):
    monkeypatch.setenv("IFAS_HOME", str(tmp_path / "home-a"))
    here = tmp_path / "runs" / "process"
    run_chain(config, "process", here / "artifacts")
    # Another home: nothing of the second run may come from the first one's cache.
    monkeypatch.setenv("IFAS_HOME", str(tmp_path / "home-b"))
    there = tmp_path / "runs" / "kfp"
    # A ledger of its own, too: one that vanishes from its place is an attack.
    gate = config.gate.model_copy(update={"ledger": f"sqlite:///{tmp_path / 'other.db'}"})
    config = config.model_copy(update={"gate": gate})
    run_local(config.model_dump_json(), "kfp", there / "artifacts", there / "run.log")

    a, b = last_lineage(here / "artifacts"), last_lineage(there / "artifacts")
    assert isinstance(a, Lineage)
    assert isinstance(b, Lineage)
    assert [e.step for e in a.entries] == [e.step for e in b.entries]
    assert a.entries[-1].step == "package"
    for step in DETERMINISTIC:
        assert a.of(step).outputs == b.of(step).outputs, step
        assert a.of(step).reused == b.of(step).reused == ""
    assert a.of("evaluate").facts["metrics"] == b.of("evaluate").facts["metrics"]
    assert a.of("gate").facts["decision"] == b.of("gate").facts["decision"]

    for run in (here, there):
        gather(run, run / "artifacts").verify()
        assert {
            "lineage.json",
            "metrics.json",
            "predictions.parquet",
            "robustness.parquet",
            "report.html",
            "bento",
        } <= {p.name for p in run.iterdir()}
        assert json.loads((run / "metrics.json").read_text())["threshold"]
    assert (tmp_path / "runs" / "latest").resolve() == there

    # A second run reuses every step that does not ask the ledger.
    again = tmp_path / "runs" / "again"
    run_chain(config, "again", again / "artifacts")
    reused = {e.step: bool(e.reused) for e in last_lineage(again / "artifacts").entries}
    assert reused == {
        "ingest": True,
        "caption": True,
        "validate": True,
        "train": True,
        "evaluate": True,
        "gate": False,
        "approve": False,
        "package": False,
    }
    assert output_of(again / "artifacts", "package", "bento").is_dir()
