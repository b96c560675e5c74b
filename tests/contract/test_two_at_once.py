"""The same step started twice at the same moment, as two real processes: one works, the other takes its result."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ifas.core.files import read_json, sha256_tree
from ifas.steps.code import code_of

#: The command, which at its end writes down what it imported.
IFAS = """
import atexit, os, sys
from ifas.cli.main import main
names = lambda: [name for name in sys.modules if name.partition(".")[0] == "ifas"]
atexit.register(lambda: open(os.environ["IMPORTED"], "w").write(" ".join(names())))
main()
"""

#: What runs around every step, and does not decide its result.
AROUND = re.compile(
    r"ifas|ifas\.configs|ifas\.cli(\..*)?|ifas\.steps\.(staged|execute|cache|code|folder|usage|attempts)"
    r"|ifas\.compute(\.connection|\.peak)?|ifas\.launch(\.pods)?"  # on a cluster or not: who pays, its image
    r"|ifas\.(steps\.(gate|ledger|rival)|promotion(\.(tables|upgrade))?|database(\.connection)?)"  # may the run be?
    r"|ifas\.core\.(account|environment|home|outputs|progress|storage|unforeseen|urls)"
)


class Twice:
    """A root with a configuration and what the steps before made; each step is started by two processes."""

    def __init__(self, root: Path, config) -> None:
        self.root = root
        self.inputs: list[str] = []
        self.config = root / "config.yaml"
        self.config.write_text(json.dumps(config.model_dump(mode="json")))

    def start(self, step: str, output: str, who: str, *options: str) -> subprocess.Popen[bytes]:
        out = self.root / f"{step}-{who}"
        out.mkdir(exist_ok=True)
        command = [sys.executable, "-c", IFAS, "step", step]
        command += ["--config", str(self.config), "--run-id", who, *self.inputs, *options]
        command += ["-o", f"{output}={out / output}", "-o", f"lineage={out / 'lineage'}"]
        told = {"IFAS_EVENTS": str(out / "events"), "IMPORTED": str(self.root / f"{step}-{who}.imported")}
        with (self.root / f"{step}-{who}.log").open("w") as log:
            return subprocess.Popen(command, env={**os.environ, **told}, cwd=self.root, stderr=log, stdout=log)

    def imported(self, step: str, who: str) -> set[str]:
        """Modules of ifas that a process had imported when it ended."""
        return set((self.root / f"{step}-{who}.imported").read_text().split())

    def events(self, step: str, who: str, kind: str) -> list[dict[str, str]]:
        file = self.root / f"{step}-{who}" / "events"
        lines = file.read_text().splitlines() if file.exists() else []
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    def waits(self, step: str, who: str) -> bool:
        return any("another run works on this step since 2" in e["text"] for e in self.events(step, who, "note"))

    def entry(self, step: str, who: str) -> dict[str, str]:
        found: dict[str, str] = read_json(self.root / f"{step}-{who}" / "lineage")["entries"][-1]
        return found

    def take(self, step: str, output: str) -> None:
        """The next step reads what this one made."""
        folder = self.root / f"{step}-a"
        self.inputs = [one for one in self.inputs if one != "-i" and not one.startswith("lineage=")]
        given = [*self.inputs, f"{output}={folder / output}", f"lineage={folder / 'lineage'}"]
        self.inputs = [word for one in given for word in ("-i", one)]


def modules(name: str) -> set[str]:
    """Modules of ifas that the key of a step says it rests on."""
    files = [Path(file).with_suffix("") for file in code_of(name).files if file.endswith(".py")]
    return {".".join(("ifas", *file.parts)).removesuffix(".__init__") for file in files}


@pytest.mark.slow
def test_two_processes_with_one_key_share_one_result_and_a_kill_hands_the_work_on(config, tmp_path):
    twice = Twice(tmp_path, config)
    outputs = {"ingest": "dataset", "caption": "captions", "validate": "validation", "train": "model"}
    for step, output in outputs.items():
        if step == "validate":  # of the others two are enough
            assert twice.start(step, output, "a").wait() == 0
            twice.take(step, output)
            continue
        both = {who: twice.start(step, output, who) for who in ("a", "b")}
        assert {who: process.wait(timeout=240) for who, process in both.items()} == {"a": 0, "b": 0}
        reused = {who: bool(twice.entry(step, who)["reused"]) for who in both}
        assert sorted(reused.values()) == [False, True], step
        worker, waiter = sorted(both, key=lambda who: reused[who])
        assert twice.events(step, worker, "start")
        assert not twice.events(step, waiter, "start")
        assert twice.waits(step, waiter)
        found = {who: sha256_tree(tmp_path / f"{step}-{who}" / output) for who in both}
        assert found["a"] == found["b"] == twice.entry(step, "a")["outputs"][output]
        # The key is made of imports that are found by reading: nothing else was imported in truth.
        seen = {name for name in twice.imported(step, worker) if not AROUND.fullmatch(name)}
        assert f"ifas.steps.{step}" in seen
        assert seen - modules(f"ifas.steps.{step}") == set()
        if step == "caption":
            who_waits_goes_on_when_the_one_that_works_is_killed(twice)
        twice.take(step, output)
    assert not list((Path(os.environ["IFAS_HOME"]) / "work").glob("*/*/*")), "no scratch is left"


def who_waits_goes_on_when_the_one_that_works_is_killed(twice: Twice) -> None:
    other = ("-s", "caption.imitate_steps=40")
    both = {who: twice.start("caption", "captions", who, *other) for who in ("c", "d")}
    wait_for(lambda: any(twice.waits("caption", who) for who in both), *both.values())
    wait_for(lambda: any(twice.events("caption", who, "start") for who in both), *both.values())
    killed, waits = sorted(both, key=lambda who: not twice.events("caption", who, "start"))
    both[killed].send_signal(signal.SIGKILL)
    both[killed].wait()
    assert both[waits].wait(timeout=240) == 0
    assert twice.entry("caption", waits)["reused"] == ""
    assert not (twice.root / f"caption-{killed}" / "captions").exists()
    # What it left beside goes when the same output is made again.
    assert list((twice.root / f"caption-{killed}").glob(".captions.*.part"))
    assert twice.start("caption", "captions", killed, *other).wait(timeout=240) == 0
    assert twice.entry("caption", killed)["reused"]
    assert {p.name for p in (twice.root / f"caption-{killed}").iterdir()} == {"captions", "events", "lineage"}


def wait_for(seen: Callable[[], bool], *processes: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not seen():
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.02)
