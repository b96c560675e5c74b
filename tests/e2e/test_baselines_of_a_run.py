"""Baselines beside a candidate, from the command to the gate: files of scores, and the linear probe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ifas.cli.run import Runner, run_pipeline
from ifas.core.config import RunConfig, load
from ifas.core.errors import ConfigError, DataError
from ifas.core.files import read_json, sha256_file, write_json
from ifas.data.registry import Registry
from ifas.steps import preflight
from ifas.steps.baselines import names, pinned, with_baselines
from ifas.steps.chain import plan


def settings(registry: Registry, root: Path, *more: str) -> RunConfig:
    given = [
        *(f"ingest.registry={registry.path}", "ingest.dataset=toy"),
        *(f"gate.ledger=sqlite:///{root / 'ledger.db'}", "evaluate.bootstrap=50", "evaluate.explain=none"),
    ]
    return load("tiny", [*given, *more])


def scores_of(registry: Registry, file: Path, splits: tuple[str, ...] = ("dev", "test"), least: int = 0) -> Path:
    """A file without an error, of these splits; the first `least` rows are left out."""
    rows = registry.manifest("toy", "HEAD")
    rows = rows[rows["split"].isin(splits)].iloc[least:]
    rows.assign(score=rows["label"].map({"live": 0.9, "spoof": 0.1}))[["sample_id", "score"]].to_csv(file, index=False)
    return file


@pytest.mark.slow
def test_a_run_with_a_file_and_the_probe(registry: Registry, tmp_path: Path) -> None:
    policy = {
        "name": "p",
        "rules": [
            {"id": "probe", "metric": "auc", "slice": "target", "max_drop": 1.0, "against": "linear_probe"},
            {"id": "file", "metric": "hter", "slice": "domain:*", "max_increase": 0.0, "against": "flip"},
        ],
    }
    policy["rules"] = [{**rule, "reason": "r"} for rule in policy["rules"]]  # type: ignore[dict-item]
    write_json(tmp_path / "policy.yaml", policy)
    scores = scores_of(registry, tmp_path / "flip.csv")
    frozen = ("model.vision.tune=frozen", "evaluate.probe=true", "evaluate.modes.images=8")
    config = settings(registry, tmp_path, f"gate.policy={tmp_path / 'policy.yaml'}", *frozen)
    config = with_baselines(config, {"flip": str(scores)})
    assert names(config) == ["linear_probe", "flip"]
    folder = run_pipeline(config, Runner.process, tmp_path / "runs")
    metrics, decision = read_json(folder / "metrics.json"), read_json(folder / "artifacts/gate/candidate")["decision"]
    probe, flip = (metrics["baselines"][name] for name in ("linear_probe", "flip"))
    assert flip["sha256"] == sha256_file(scores)
    assert flip["slices"]["target"]["hter"]["baseline"] == 0
    own = metrics["slices"]["target"]
    assert flip["slices"]["target"]["hter"]["value"] == pytest.approx(own["hter"]["value"])
    rows = registry.manifest("toy", "HEAD")
    assert probe["training_rows"] == int((rows["split"] == "train").sum())
    widths = 3 * 32 * len(config.model.views)
    assert probe["features"] == widths, "all levels of all views"
    assert probe["coverage"]["test"] == {"n": own["n"] + metrics["slices"]["source_test"]["n"], "missing": 0}
    assert probe["slices"]["target"]["auc"]["baseline"] == pytest.approx(
        own["auc"]["value"] - probe["slices"]["target"]["auc"]["value"]
    )
    by_id: dict[str, list[Any]] = {}
    for rule in decision["rules"]:
        by_id.setdefault(rule["id"], []).append(rule)
    assert [rule["passed"] for rule in by_id["probe"]] == [True]
    assert {rule["slice"] for rule in by_id["file"]} == {"domain:kiosk", "domain:office", "domain:street"}
    assert all(rule["against"] == "flip" for rule in by_id["file"])
    # The tiny model was never asked by multiple choice: the figure is there, whatever it says.
    assert metrics["modes"]["n"] == 8
    assert own["choice_position_bias"]["n"] + metrics["slices"]["source_test"]["choice_position_bias"]["n"] == 8
    assert len(pd.read_parquet(folder / "artifacts/evaluate/evaluation/modes.parquet")) == 8
    # The run records which file it was, by content: another one is not taken in its place.
    kept = json.loads((folder / "config.json").read_text())["evaluate"]["baselines"]["flip"]
    assert kept == f"{scores}#sha256={sha256_file(scores)}"
    again = RunConfig.model_validate(json.loads((folder / "config.json").read_text()))
    reused = {step.name: reuse for step, reuse, _ in plan(again)}
    assert reused["evaluate"]
    table = pd.read_csv(scores)
    table.assign(score=1 - table["score"]).to_csv(scores, index=False)
    reused = {step.name: reuse for step, reuse, _ in plan(pinned(config))}
    assert reused["train"]
    assert not reused["evaluate"], "other scores: only what was measured is measured again"
    with pytest.raises(DataError, match="is not what it should be"):
        preflight.check(again)


def test_a_policy_that_asks_for_a_baseline_that_the_run_lacks(registry: Registry, tmp_path: Path) -> None:
    rule = {"id": "a", "metric": "auc", "slice": "target", "max_drop": 0.0, "against": "linear_probe", "reason": "r"}
    write_json(tmp_path / "p.yaml", {"name": "p", "rules": [rule]})
    asks = settings(registry, tmp_path, f"gate.policy={tmp_path / 'p.yaml'}", "evaluate.probe=true")
    with pytest.raises(ConfigError, match="compares with baseline linear_probe, which this run does not have"):
        preflight.check(asks)  # tiny trains its tower
    preflight.check(asks.model_copy(update={"model": _frozen(asks)}))


def _frozen(config: RunConfig) -> Any:
    vision = config.model.vision.model_copy(update={"tune": "frozen"})
    return config.model.model_copy(update={"vision": vision})


def test_a_cluster_needs_a_place_that_every_pod_has(registry: Registry, tmp_path: Path) -> None:
    local = with_baselines(settings(registry, tmp_path), {"flip": str(scores_of(registry, tmp_path / "s.csv"))})
    with pytest.raises(ConfigError, match=r"evaluate.baselines.flip is .*s.csv, a file that no pod has"):
        preflight.check(local, here=False)


def test_a_file_in_a_store_is_pinned_by_its_content(registry: Registry, tmp_path: Path, s3: Any) -> None:
    from ifas.core import storage

    scores = scores_of(registry, tmp_path / "s.csv")
    uri = f"s3://{s3.bucket}/baselines/flip.csv"
    storage.store(scores, uri)
    config = pinned(with_baselines(settings(registry, tmp_path), {"flip": uri}))
    assert config.evaluate.baselines["flip"] == f"{uri}#sha256={sha256_file(scores)}"
    shutil.copy(scores, tmp_path / "kept.csv")
    scores.write_text("sample_id,score\n")
    storage.store(scores, uri)
    # What was pinned is on this machine already; a machine that fetches it now is told.
    preflight.check(config)
    shutil.rmtree(storage.home() / "fetched")
    with pytest.raises(DataError, match="is not what it should be"):
        preflight.check(config)
