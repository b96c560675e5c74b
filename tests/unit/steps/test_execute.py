"""What `execute` does around every step, tested with a step function that only copies and counts."""

import dataclasses
import errno
import json
import os
import sys
import time
import types
from contextlib import suppress
from pathlib import Path

import pytest

from ifas.core import storage
from ifas.core.config import load
from ifas.core.errors import ConfigError, DataError, LaunchError
from ifas.core.files import sha256_tree
from ifas.core.outputs import producing
from ifas.core.records import Lineage, StepResult
from ifas.steps import cache, contract
from ifas.steps.attempts import counted, spent
from ifas.steps.execute import execute
from ifas.steps.staged import execute_staged
from ifas.steps.usage import KFP_RUN_ID

CONFIG = load("tiny")


@pytest.fixture
def copy_step(monkeypatch):
    """A step that copies its input; `calls` holds one entry per real run, `fail` makes it raise half way."""
    state = types.SimpleNamespace(calls=[], fail=None, file="text")

    def run(config, inputs, outputs, context):
        state.calls.append(context)
        outputs["copy"].mkdir()
        (outputs["copy"] / state.file).write_text(inputs["text"].read_text())
        if context.uri:
            storage.store(inputs["text"], f"{context.uri}/checkpoint")
        if state.fail:
            raise state.fail
        return StepResult(summary="copied", facts={"seed": config.train.seed})

    module = types.ModuleType("ifas.steps.copy_for_test")
    module.run = run
    monkeypatch.setitem(sys.modules, "ifas.steps.copy_for_test", module)
    step = contract.Step(name="copy_for_test", about="", sections=("train",), inputs=("text",), outputs=("copy",))
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


def test_a_reused_result_is_that_of_the_image_that_made_it(copy_step, go, tmp_path, monkeypatch):
    """The same image may be pulled from another registry."""
    monkeypatch.setenv("IFAS_IMAGE", "ifas@sha256:first")
    go("a")
    monkeypatch.setenv("IFAS_IMAGE", "mirror.example/ifas@sha256:first")
    lineage, _ = go("b")
    assert lineage.entries[-1].reused
    assert lineage.entries[-1].image == "ifas@sha256:first"


def test_another_image_runs_again_and_says_so(copy_step, go, tmp_path, monkeypatch):
    """Its system libraries may be others, and nothing else in the key tells."""
    events = tmp_path / "events"
    monkeypatch.setenv("IFAS_EVENTS", str(events))
    monkeypatch.setenv("IFAS_IMAGE", "ifas@sha256:first")
    go("a")
    monkeypatch.setenv("IFAS_IMAGE", "ifas@sha256:second")
    lineage, _ = go("b")
    assert not lineage.entries[-1].reused
    assert len(copy_step.calls) == 2
    assert any("image" in json.loads(line).get("text", "") for line in events.read_text().splitlines())


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


def test_a_failing_step_leaves_an_older_output_and_its_lineage_as_they_were(copy_step, go, tmp_path):
    go("a")
    before = sha256_tree(tmp_path / "a")
    go.text.write_text("other")
    copy_step.fail = DataError("half way")
    with pytest.raises(DataError, match="half way"):
        go("a")
    assert sha256_tree(tmp_path / "a") == before
    copy_step.fail = None
    _, outputs = go("a")
    assert (outputs["copy"] / "text").read_text() == "other"
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["copy", "lineage.json"]


def test_a_success_removes_what_ifas_left_of_a_failure_and_nothing_else(copy_step, go, tmp_path):
    left = tmp_path / "a" / "copy.failed"
    left.mkdir(parents=True)
    (left / "notes.txt").write_text("mine")
    go("a")
    assert (left / "notes.txt").read_text() == "mine"
    (left / "notes.txt").unlink()
    with producing(left) as beside:
        beside.mkdir()
        (beside / "report.html").write_text("bad")
    go("a")
    assert not left.exists()


@pytest.mark.parametrize("cached", [False, True])
def test_what_ifas_did_not_make_is_refused_by_name_before_the_step_runs(copy_step, go, tmp_path, cached):
    if cached:
        go("a")
    (tmp_path / "b" / "copy").mkdir(parents=True)
    (tmp_path / "b" / "copy" / "thesis.tex").write_text("years of work")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "lineage.json").write_text("my notes")
    for out, named in (("b", r"thesis\.tex"), ("c", r"lineage\.json")):
        with pytest.raises(DataError, match=f"not made by ifas.*{named}"):
            go(out)
    assert len(copy_step.calls) == cached
    assert (tmp_path / "b" / "copy" / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "c" / "lineage.json").read_text() == "my notes"
    assert not (tmp_path / "c" / "copy").exists()


def test_what_another_try_goes_on_from_is_removed_when_the_outputs_are_stored_and_nothing_else(
    copy_step, go, tmp_path, monkeypatch
):
    store = tmp_path / "store"
    outputs = {"copy": f"file://{store}/copy", "lineage": f"file://{store}/lineage.json"}
    (store / "copy.work").mkdir(parents=True)
    (store / "copy.work" / "thesis.tex").write_text("years of work")

    def run() -> None:
        inputs = {"text": str(go.text)}
        execute_staged("copy_for_test", CONFIG, run_id="r", inputs=inputs, outputs=outputs, use_cache=False)

    def full(path, uri):
        raise DataError("the store is full")

    with monkeypatch.context() as patched, pytest.raises(DataError, match="full"):
        patched.setattr("ifas.steps.staged._store", full)
        run()
    other = storage.sizes(copy_step.calls[0].uri)
    assert list(other) == ["checkpoint"]
    go.text.write_text("other")
    run()
    assert storage.sizes(copy_step.calls[0].uri) == other, "of a run with another key"
    go.text.write_text("hello")
    run()
    assert storage.sizes(f"file://{store}/copy.work") == {"thesis.tex": 13}


def test_checkpoints_in_train_storage_stay_until_the_model_is_in_place(copy_step, go, tmp_path, monkeypatch):
    step = dataclasses.replace(contract.STEPS["copy_for_test"], name="train")
    monkeypatch.setitem(contract.STEPS, "train", step)
    monkeypatch.setitem(sys.modules, "ifas.steps.train", sys.modules["ifas.steps.copy_for_test"])
    config = load("tiny", [f"train.storage={tmp_path / 'mounted'}"])
    outputs = {"copy": tmp_path / "copy", "lineage": tmp_path / "lineage.json"}
    copy_step.fail = DataError("half way")
    for left in (["checkpoint"], []):
        with suppress(DataError):
            execute("train", config, run_id="r", inputs={"text": go.text}, outputs=outputs)
        assert [path.name for path in (tmp_path / "mounted").rglob("*") if path.is_file()] == left
        copy_step.fail = None


def test_a_store_s_objects_that_ifas_did_not_put_there_are_refused_by_name(copy_step, go, tmp_path):
    store = tmp_path / "store"
    outputs = {"copy": f"file://{store}/copy", "lineage": f"file://{store}/lineage.json"}

    def run() -> None:
        execute_staged("copy_for_test", CONFIG, run_id="r", inputs={"text": str(go.text)}, outputs=outputs)

    run()
    go.text.write_text("other")
    run()
    assert (store / "copy" / "text").read_text() == "other"
    (store / "copy" / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=r"not stored by ifas.*thesis\.tex"):
        run()
    (store / "copy" / "thesis.tex").unlink()
    (store / "lineage.json").write_text("my notes")
    with pytest.raises(DataError, match=r"not stored by ifas.*lineage\.json"):
        run()
    assert (store / "lineage.json").read_text() == "my notes"
    assert len(copy_step.calls) == 2, "told before the work"
    (store / "lineage.json").unlink()
    copy_step.file = "another"
    go.text.write_text("third")
    run()
    assert [p.name for p in (store / "copy").iterdir()] == ["another"], "no part of an older output is left"


def test_empty_places_made_by_a_runner_are_taken(copy_step, go, tmp_path):
    (tmp_path / "a" / "copy").mkdir(parents=True)
    (tmp_path / "a" / "lineage.json").touch()
    go("a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "copy").touch()
    assert (go("b")[1]["copy"] / "text").read_text() == "hello"


def test_outputs_and_inputs_that_lie_in_one_another_are_refused(copy_step, tmp_path):
    text = tmp_path / "in" / "text"
    text.parent.mkdir()
    text.write_text("hello")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for copy, lineage, said in (
        (text, tmp_path / "l", "output copy and input text"),
        (text.parent, tmp_path / "l", "output copy and input text"),
        (tmp_path / "link" / "text", tmp_path / "l", "output copy and input text"),
        (tmp_path / "out", tmp_path / "out" / "l", "outputs copy and lineage"),
        (tmp_path / "out", tmp_path / "out.failed", "outputs lineage and of a failed copy_for_test"),
    ):
        with pytest.raises(ConfigError, match=said):
            execute(
                "copy_for_test",
                CONFIG,
                run_id="r",
                inputs={"text": text},
                outputs={"copy": copy, "lineage": lineage},
            )
    assert text.read_text() == "hello"
    with producing(tmp_path / "b.failed") as beside:
        beside.write_text("an output that ifas made")
    with pytest.raises(ConfigError, match="input text"):
        execute(
            "copy_for_test",
            CONFIG,
            run_id="r",
            inputs={"text": tmp_path / "b.failed"},
            outputs={"copy": tmp_path / "b", "lineage": tmp_path / "l"},
        )
    assert (tmp_path / "b.failed").is_file()


def test_a_full_disk_below_the_cache_costs_no_result(copy_step, go, tmp_path, monkeypatch):
    events = tmp_path / "events"
    monkeypatch.setenv("IFAS_EVENTS", str(events))

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(cache, "link_tree", full)
        _, outputs = go("a")
    assert (outputs["copy"] / "text").read_text() == "hello"
    assert "not kept for later runs: No space left on device" in events.read_text()
    go("b")
    assert len(copy_step.calls) == 2
    assert not list((Path(os.environ["IFAS_HOME"]) / "cache").rglob("*.part"))


def test_a_damaged_entry_is_a_miss(copy_step, go):
    go("a")
    (entry,) = (Path(os.environ["IFAS_HOME"]) / "cache").rglob("entry.json")
    for text in ("", "[]", "{}", '{"key": {}, "outputs": {"copy": "0"}, "result": 3}'):
        entry.write_text(text)
        go("b")
    entry.write_text('{"key": {"code": "of an older format"}, "outputs": {}, "result": {}}')
    go.text.write_text("another key")
    go("b")
    assert len(copy_step.calls) == 6


def test_a_result_is_kept_for_pods_whose_disks_are_empty(copy_step, go, tmp_path, monkeypatch):
    """$IFAS_HOME dies with a pod; `cluster.storage` does not. What lies there is checked."""
    config = load("tiny", [f"cluster.storage={tmp_path / 'shared'}"])
    go("a", config=config)
    for n, reused in enumerate((True, False)):
        monkeypatch.setenv("IFAS_HOME", str(tmp_path / f"pod-{n}"))
        lineage, outputs = go(f"b{n}", config=config)
        assert bool(lineage.entries[0].reused) is reused
        assert (outputs["copy"] / "text").read_text() == "hello"
        for text in (tmp_path / "shared").rglob("text"):
            text.write_text("damaged meanwhile")
    assert len(copy_step.calls) == 2


def test_the_price_of_a_step_has_that_of_its_failed_tries_in_it(copy_step, go, tmp_path, monkeypatch):
    monkeypatch.setenv(KFP_RUN_ID, "r")
    config = load("tiny", [f"cluster.storage={tmp_path / 'shared'}", "cluster.prices.cpu=1000"])
    for run, seconds in (("r", 0.2), ("other", 0.6)):
        with suppress(LaunchError), counted("copy_for_test", config.cluster, run):
            time.sleep(seconds)
            raise LaunchError("quota")
    lineage, _ = go("a", config=config)
    (entry,) = lineage.entries
    tried = spent(config.cluster, "r", "copy_for_test")
    a_second = 1000 / 3600 * config.cluster.pod("copy_for_test").cpus
    assert tried >= 0.2 * a_second
    assert entry.usage.price >= tried
    # Its own seconds are measured twice, a moment apart; the tries of the other run took longer than that.
    assert entry.usage.price < tried + (entry.seconds + 0.4) * a_second


def test_a_store_that_is_away_costs_no_result(copy_step, go, tmp_path, monkeypatch):
    monkeypatch.setenv("IFAS_EVENTS", str(tmp_path / "events"))
    (tmp_path / "file").write_text("where the store's folder should be")
    _, outputs = go("a", config=load("tiny", [f"cluster.storage={tmp_path / 'file'}"]))
    assert (outputs["copy"] / "text").read_text() == "hello"
    assert "not kept for other pods" in (tmp_path / "events").read_text()


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
    with pytest.raises(ConfigError, match="lacks text"):
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


def test_captions_depend_on_how_faces_are_found_and_on_nothing_else_of_the_model(tmp_path):
    inputs = {"dataset": tmp_path}
    key = lambda *changes: cache.key_of(contract.step("caption"), load("tiny", list(changes)), inputs)  # noqa: E731
    assert key("model.faces.least_pixels=40").digest != key().digest == key("model.face_margin=2").digest
    assert key("model.faces.least_pixels=40").difference(key().parts()) == "config model.faces.least_pixels"
