"""`python -m benchmarks.demo [--seeds N] [--work FOLDER] [--set KEY=VALUE]`: how good is the demo's model?

The demo's data and captions are made once; then the demo's pipeline runs with each seed of the training. Printed are
figures of the unseen domain, each against its bar, whether a training was stuck (how long the loss of the judgment
stays at the share of the classes), and which rules of the demo's own policy each model breaks: the runs have a
permissive one, so that every seed is judged to its end.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from benchmarks.figure import figure
from benchmarks.learning.single import dev_auc
from ifas.cli.demo import publish_demo
from ifas.cli.run import Runner, run_pipeline
from ifas.core.config import load
from ifas.core.environment import prepare
from ifas.core.files import read_json
from ifas.core.records import METRICS_FILE, PREDICTIONS_FILE
from ifas.promotion.gate import decide
from ifas.promotion.policy import load_policy
from ifas.steps.folder import output_of

#: At most this part of the steps may pass before the judgment's loss leaves the share of the classes.
QUARTER = 0.25
#: What `make demo` is gated by.
POLICY = load_policy("builtin:demo")


def run_of(folder: Path) -> dict[str, Any]:
    """The metrics of a run, the facts of its training, and its AUC on source development data."""
    entries = {entry["step"]: entry for entry in read_json(folder / "lineage.json")["entries"]}
    evaluation = output_of(folder / "artifacts", "evaluate", "evaluation")
    assert evaluation is not None, f"{folder} has no evaluation"
    return {
        "metrics": read_json(folder / METRICS_FILE),
        "training": entries["train"]["facts"],
        "dev_auc": dev_auc(pd.read_parquet(evaluation / PREDICTIONS_FILE)),
    }


def main() -> int:
    """Prints each seed's figures and the bars; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("build/benchmark-demo"), help="kept; a second call goes on")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    args = parser.parse_args()
    prepare()
    work = args.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["IFAS_HOME"] = str(work / "home")
    os.chdir(work)
    overrides = ["gate.policy=builtin:permissive", *args.overrides]
    publish_demo(load("laptop", overrides), None)
    found = []
    for seed in range(args.seeds):
        folder = run_pipeline(load("laptop", [*overrides, f"train.seed={seed}"]), Runner.kfp, work / "runs")
        found.append(run_of(folder))
        print(json.dumps({"seed": seed, **shown(found[-1])}), flush=True)
    return 0 if all(bars(found)) else 1


def shown(run: dict[str, Any]) -> dict[str, Any]:
    """The figures of one run that have a bar."""
    slices, training = run["metrics"]["slices"], run["training"]
    target = slices["target"]
    return {
        "auc": target["auc"]["value"],
        "hter": target["hter"]["value"],
        "right_attack": target["explanation_medium"]["value"],
        "right_attack_by_type": {n: e["value"] for n, e in target["explanation_medium_by_type"].items()},
        "contradictions": target["explanation_contradictions"]["value"],
        "dev_auc": run["dev_auc"],
        "source_auc": slices["source_test"]["auc"]["value"],
        "flips": {n.partition(":")[2]: s["flips"]["value"] for n, s in slices.items() if n.startswith("handling:")},
        "broken_rules": [rule.id for rule in decide(run["metrics"], None, POLICY).rules if not rule.passed],
        "left_plateau": training["left_plateau"],
        "steps": training["steps"],
    }


def bars(found: list[dict[str, Any]]) -> list[bool]:
    """Prints each figure with its bar."""
    each = [shown(run) for run in found]
    # What a run could not measure counts as missed.
    aucs, named = [one["auc"] or 0 for one in each], [one["right_attack"] or 0 for one in each]
    contradictions = [1 if one["contradictions"] is None else one["contradictions"] for one in each]
    passed = [
        figure("demo.target AUC, median", median(aucs), "", bar=0.96, bar_is="value >="),
        figure("demo.target AUC, least", min(aucs), "", bar=0.92, bar_is="value >="),
        figure("demo.source dev AUC, least", min(one["dev_auc"] for one in each), "", bar=0.93, bar_is="value >="),
        figure("demo.right attack, median", median(named), "", bar=0.8, bar_is="value >="),
        figure("demo.contradictions", max(contradictions), "", bar=0),
    ]
    for name in sorted({name for one in each for name in one["right_attack_by_type"]}):
        value = median(one["right_attack_by_type"].get(name) or 0 for one in each)
        passed.append(figure(f"demo.right attack, {name}", value, "", bar=0.6, bar_is="value >="))
    for name in sorted({name for one in each for name in one["flips"]}):
        flips = [one["flips"].get(name) for one in each]
        passed.append(figure(f"demo.flips, {name}", median(1 if f is None else f for f in flips), "", bar=0.05))
    refused = sum(1 for one in each if one["broken_rules"])
    passed.append(figure("demo.seeds that the demo's policy refuses", refused, "", bar=0))
    # A run that never left the plateau counts as one that left it after its last step.
    left = [one["steps"] if one["left_plateau"] is None else one["left_plateau"] for one in each]
    limit = QUARTER * each[0]["steps"]
    passed.append(figure("demo.steps at the share of the classes, most", max(left), "steps", bar=limit))
    return passed


if __name__ == "__main__":
    sys.exit(main())
