"""The demo's chain: seconds per step, what ifas adds to a step beyond kfp.local, and start-up of training.

Runs the pipeline twice in an empty home: the first run works, the second reuses every cached step. The baseline is
kfp.local itself, running a pipeline of as many steps that do nothing but write their artifact.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ifas_pipelines.local import output_to
from kfp import dsl, local

from benchmarks.figure import figure
from ifas.cli.demo import publish_demo
from ifas.cli.run import Runner, run_pipeline
from ifas.core.config import load
from ifas.core.environment import prepare
from ifas.steps.contract import STEPS


@dsl.component(base_image="local", install_kfp_package=False)
def nothing(out: dsl.Output[dsl.Artifact], previous: dsl.Input[dsl.Artifact]) -> None:
    """Writes its artifact."""
    with open(out.path, "w") as file:
        file.write("done")


@dsl.component(base_image="local", install_kfp_package=False)
def first(out: dsl.Output[dsl.Artifact]) -> None:
    """Writes its artifact."""
    with open(out.path, "w") as file:
        file.write("done")


@dsl.pipeline(name="empty")
def empty() -> None:
    """As many steps as `retrain`, one after another."""
    task = first()
    for _ in range(len(STEPS) - 1):
        task = nothing(previous=task.outputs["out"])


def baseline(root: Path) -> float:
    """Seconds per step of the empty pipeline under kfp.local."""
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root / "empty"))
    begin = time.perf_counter()
    with output_to(root / "empty.log"):
        empty()
    return (time.perf_counter() - begin) / len(STEPS)


def events(run: Path) -> list[dict[str, Any]]:
    """The run's events."""
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def first_training_step(run: Path) -> float:
    """Seconds from the start of `train` to the end of its first step."""
    train = [e for e in events(run) if e["step"] == "train"]
    start = next(e["t"] for e in train if e["kind"] == "start")
    return float(next(e["t"] for e in train if e["kind"] == "progress" and e["done"] >= 1) - start)


def main() -> int:
    """Prints the figures. An argument names the profile (default `laptop`)."""
    profile = sys.argv[1] if len(sys.argv) > 1 else "laptop"
    prepare()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        os.environ["IFAS_HOME"] = f"{scratch}/.ifas"
        root = Path(scratch)
        config = load(profile)
        publish_demo(config, None)
        begin = time.perf_counter()
        cold = run_pipeline(config, Runner.kfp, root / "runs")
        seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        run_pipeline(config, Runner.kfp, root / "runs")
        reused = (time.perf_counter() - begin) / len(STEPS)
        for entry in json.loads((cold / "lineage.json").read_text())["entries"]:
            figure(f"chain.{entry['step']}", entry["seconds"], "s")
        figure("chain.total", seconds, "s", bar=300)
        figure("chain.start to first training step", first_training_step(cold), "s", bar=40)
        empty_step = baseline(root)
        figure("chain.seconds per reused step", reused, "s", baseline=empty_step)
        figure("chain.own overhead per step", reused - empty_step, "s", bar=2.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
