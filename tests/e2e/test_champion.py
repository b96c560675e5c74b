"""A second model beside the champion: judged on the same images, before the gate says which is better."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ifas.core.config import RunConfig, load
from ifas.core.files import read_json, write_json
from ifas.data.registry import Registry
from ifas.promotion.ledger import Ledger
from ifas.steps.chain import run_chain

pytestmark = pytest.mark.slow

#: Asks of the difference's interval what no difference of a few people can show, and of its value what any does.
POLICY = {
    "name": "paired",
    "rules": [
        {"id": "value", "metric": "bpcer", "slice": "target", "max_increase": 1.0, "missing_champion": "pass"},
        {
            "id": "interval",
            "metric": "bpcer",
            "slice": "target",
            "max_increase": 1.0,
            "bound": "interval",
            "missing_champion": "pass",
        },
    ],
}


def settings(registry: Registry, root: Path, *more: str) -> RunConfig:
    policy = {**POLICY, "rules": [{**rule, "reason": "r"} for rule in POLICY["rules"]]}  # type: ignore[dict-item]
    write_json(root / "policy.yaml", policy)
    given = [
        *(f"ingest.registry={registry.path}", "ingest.dataset=toy"),
        *(f"gate.ledger=sqlite:///{root / 'ledger.db'}", f"gate.policy={root / 'policy.yaml'}"),
        *("approve.by_policy=true", "evaluate.bootstrap=50", *more),
    ]
    return load("tiny", given)


def run(config: RunConfig, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its metrics and its candidate's record."""
    run_chain(config, folder.name, folder)
    return read_json(folder / "evaluate" / "evaluation" / "metrics.json"), read_json(folder / "gate" / "candidate")


def test_the_champion_is_scored_on_the_candidates_images(registry: Registry, tmp_path: Path) -> None:
    alone, first = run(settings(registry, tmp_path), tmp_path / "one")
    assert "against_champion" not in alone
    metrics, second = run(settings(registry, tmp_path, "train.seed=1"), tmp_path / "two")
    paired = metrics["against_champion"]
    assert (paired["candidate"], paired["model"]) == (first["candidate"], first["model_sha256"])
    bpcer = paired["slices"]["target"]["bpcer"]
    assert bpcer["value"] == pytest.approx(metrics["slices"]["target"]["bpcer"]["value"] - bpcer["champion"])
    assert bpcer["champion"] == alone["slices"]["target"]["bpcer"]["value"], "on the same data, the same figure"
    for rule in second["decision"]["rules"]:
        assert rule["difference"] == bpcer["value"]
        assert rule["interval"] == bpcer["interval"]
    assert not [note for note in second["decision"]["notes"] if "other test images" in note]

    # The champion's own run again: nothing is judged anew, and it is the same candidate.
    again, same = run(settings(registry, tmp_path, "train.seed=1"), tmp_path / "three")
    assert (again, same["candidate"]) == (metrics, second["candidate"])

    # A third one, when the champion's model is gone: told, and a rule that needs the pair denies.
    shutil.rmtree(tmp_path / "two" / "train")
    figures, third = run(settings(registry, tmp_path, "train.seed=2"), tmp_path / "four")
    assert "against_champion" not in figures
    value, interval = third["decision"]["rules"]
    assert (value["passed"], interval["passed"]) == (True, False)
    assert "the champion was not scored on these pictures" in interval["why"]
    assert third["state"] == "refused"
    assert Ledger(f"sqlite:///{tmp_path / 'ledger.db'}").champion("ifas") is not None
