"""What `execute` does around every step, shown on a real step function that only copies and counts."""

import json
import sys
import types

import pytest

from ifas.core.config import load
from ifas.core.errors import ConfigError, DataError
from ifas.core.files import sha256_tree
from ifas.core.records import Lineage, StepResult
from ifas.steps import contract
from ifas.steps.execute import execute

CONFIG = load("tiny")


@pytest.fixture
def copy_step(monkeypatch):
    """A step that copies its input; `calls` holds one entry per real run, `fail` makes it raise half way."""
    state = types.SimpleNamespace(calls=[], fail=None)

    def run(config, inputs, outputs, context):
        state.calls.append(context)
        outputs["copy"].mkdir()
        (outputs["copy"] / "text").write_text(inputs["text"].read_text())
        if state.fail:
            raise state.fail
        return StepResult(summary="copied", facts={"seed": config.train.seed})

    module = types.ModuleType("ifas.steps.copy_for_test")
    module.run = run
    monkeypatch.setitem(sys.modules, "ifas.steps.copy_for_test", module)
    step = contract.Step(
        name="copy_for_test", about="", sections=("train",), inputs=("text",), outputs=("copy",), rooms=()
    )
    monkeypatch.setitem(contract.STEPS, "copy_for_test", step)
    return state


@pytest.fixture
def go(tmp_path):
    text = tmp_path / "text"
    text.write_text("hello")

    def go(out="out", config=CONFIG, **inputs):
        outputs = {"copy": tmp_path / out / "copy", "lineage": tmp_path / out / "lineage.json"}
        (tmp_path / out).mkdir(exist_ok=True)
        execute("copy_for_test", config, run_id="r", inputs={"text": text, **inputs}, outputs=outputs)
        return Lineage.model_validate(json.loads(outputs["lineage"].read_text())), outputs

    go.text = text
    return go


def test_second_run_reuses_and_says_why(copy_step, go):
    first, _ = go("a")
    second, outputs = go("b")
    assert len(copy_step.calls) == 1
    assert (outputs["copy"] / "text").read_text() == "hello"
    assert first.entries[0].reused == ""
    assert "unchanged" in second.entries[0].reused
    assert first.entries[0].outputs == second.entries[0].outputs == {"copy": sha256_tree(outputs["copy"])}


def test_changed_input_config_or_damaged_cache_runs_again(copy_step, go, tmp_path, monkeypatch):
    events = tmp_path / "events"
    monkeypatch.setenv("IFAS_EVENTS", str(events))
    go("a")
    go("b", config=load("tiny", ["train.seed=5"]))
    go.text.write_text("changed")
    _, outputs = go("c")
    # Hard links: damage through the caller's copy is damage of the cache, and is found.
    (outputs["copy"] / "text").write_text("tampered")
    go("d")
    assert len(copy_step.calls) == 4
    why = [e["text"] for e in map(json.loads, events.read_text().splitlines()) if e["kind"] == "note"]
    assert "no earlier result" in why[0]
    assert "config train.seed" in why[1]
    assert "input text" in why[2]
    assert "damaged" in why[3]


def test_config_of_other_steps_does_not_matter(copy_step, go):
    go("a")
    go("b", config=load("tiny", ["package.name=other"]))
    assert len(copy_step.calls) == 1


def test_failure_leaves_no_lineage_and_no_cache_and_can_be_repeated(copy_step, go, tmp_path):
    copy_step.fail = DataError("half way")
    with pytest.raises(DataError, match="half way"):
        go("a")
    assert not (tmp_path / "a" / "lineage.json").exists()
    copy_step.fail = None
    go("a")
    assert len(copy_step.calls) == 2
    assert copy_step.calls[0].work == copy_step.calls[1].work, "scratch of the killed try is found again"


def test_lineage_is_chained_and_checked(copy_step, go, tmp_path):
    first, outputs = go("a")
    second, _ = go("b", lineage=outputs["lineage"])
    assert [e.hash for e in second.entries][:1] == [first.entries[0].hash]
    assert second.entries[1].previous == first.entries[0].hash
    text = outputs["lineage"].read_text()
    outputs["lineage"].unlink()
    outputs["lineage"].write_text(text.replace('"copied"', '"forged"'))
    with pytest.raises(DataError, match="altered"):
        go("c", lineage=outputs["lineage"])


def test_wrong_names_are_refused_before_anything_runs(copy_step, tmp_path):
    with pytest.raises(ConfigError, match="misses text"):
        execute("copy_for_test", CONFIG, run_id="r", inputs={}, outputs={})
    with pytest.raises(ConfigError, match="has no output other"):
        execute(
            "copy_for_test",
            CONFIG,
            run_id="r",
            inputs={"text": tmp_path},
            outputs={"copy": tmp_path / "c", "other": tmp_path, "lineage": tmp_path / "l"},
        )
    with pytest.raises(DataError, match="is missing"):
        execute(
            "copy_for_test",
            CONFIG,
            run_id="r",
            inputs={"text": tmp_path / "nowhere"},
            outputs={"copy": tmp_path / "c", "lineage": tmp_path / "l"},
        )
    assert copy_step.calls == []


def test_unknown_step_lists_the_known():
    with pytest.raises(ConfigError, match="ingest, package"):
        execute("deploy", CONFIG, run_id="r", inputs={}, outputs={})


def test_every_step_s_inputs_are_made_before_it():
    made: set[str] = set()
    for step in contract.STEPS.values():
        assert set(step.inputs) <= made
        made |= set(step.outputs)
