"""A fast part of `make drills`; and that a drill can fail, without which the table would mean nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from ifas.core.files import read_json
from ifas.data.pack import pack
from ifas.promotion.gate import decide
from ifas.promotion.ledger import Ledger
from ifas.promotion.policy import Policy, Rule
from ifas.steps.contract import STEPS
from tests import toy_dataset
from tests.drills import disk, killed, run
from tests.drills.chain import Failed, Skipped, different, ledger_faults, left_over
from tests.drills.effects import Effect, sample
from tests.drills.killed import Try, killed_at
from tests.drills.table import Drill, World, page, play, world


@pytest.fixture(scope="module")
def small() -> Iterator[World]:
    with run.scratch() as root, world(root, kills=2) as made:
        yield made


@pytest.mark.slow
def test_a_cheap_step_is_killed_twice_and_ends_as_if_it_had_not_been(small: World) -> None:
    assert killed.kill_step(small, "ingest").startswith("killed at 2 of ")


@pytest.mark.slow
def test_a_full_disk(small: World) -> None:
    try:
        assert "ended with 9, the rerun finished" in disk.full_disk(small, "ingest", (0.5,))
    except Skipped as why:
        pytest.skip(str(why))


@pytest.mark.slow
def test_a_rerun_that_makes_something_else_is_a_failure(small: World) -> None:
    chain = small.chain
    pack("folder", toy_dataset.make(chain.root / "raw-2", seed=1), chain.root / "packed-2", name="toy")
    chain.registry.publish(chain.root / "packed-2")

    def fresh() -> Try:
        place = chain.place("ingest.revision=v1")
        return Try(chain, place, place.step("ingest", {}), lambda: chain.faults("ingest", place))

    def lost(place) -> None:
        given = read_json(place.config)
        place.config.write_text(json.dumps({**given, "ingest": {**given["ingest"], "revision": "v2"}}))

    effects = chain.undisturbed("ingest").effects
    with pytest.raises(Failed, match="the rerun left something else: another content: dataset"):
        killed_at(effects, 1, fresh, lost)
    killed_at(effects, 1, fresh)


@pytest.mark.slow
def test_a_rerun_that_fails_is_a_failure(small: World) -> None:
    chain = small.chain

    def fresh() -> Try:
        place = chain.place("ingest.revision=v1")
        return Try(chain, place, place.step("ingest", {}), list)

    def lost(place) -> None:
        (place.out / "dataset").mkdir(exist_ok=True)
        (place.out / "dataset" / "mine").write_text("a file of the user")

    with pytest.raises(Failed, match="the rerun failed"):
        killed_at(chain.undisturbed("ingest").effects, 1, fresh, lost)


def test_differences_and_scratch_are_told(tmp_path: Path) -> None:
    assert different({"a": "1"}, {"a": "1"}) == []
    assert different({"a": "1", "b": "1"}, {"a": "2", "c": "1"}) == ["another content: a, b, c"]
    (tmp_path / "work" / "train").mkdir(parents=True)
    (tmp_path / "work" / "train" / "key.lock").touch()
    assert left_over(tmp_path) == []
    (tmp_path / "work" / "train" / "key").mkdir()
    (tmp_path / ".dataset.0123abcd.part").mkdir()
    (said,) = left_over(tmp_path)
    assert "work/train/key" in said
    assert ".part" in said


def test_a_second_candidate_is_told(tmp_path: Path) -> None:
    policy = Policy(name="p", rules=[Rule(id="r", metric="auc", slice="target", min=0.5, reason="because")])
    decision = decide({"slices": {"target": {"auc": {"value": 0.9, "n": 9}}}}, None, policy)
    ledger = Ledger(url := f"sqlite:///{tmp_path / 'ledger.db'}")

    def submit(model: str) -> str:
        given = {"product": "ifas", "run_id": "r", "dataset_revision": "f00", "metrics": {}, "facts": {}}
        return ledger.submit(evidence={"model": model}, model_sha256=model, decision=decision, **given).id

    first = submit("a" * 64)
    assert ledger_faults(url, first, approved=False) == []
    assert "its decisions are" in ledger_faults(url, first, approved=True)[0]
    submit("b" * 64)
    assert "the ledger has the candidates" in ledger_faults(url, first, approved=False)[0]
    ledger.close()


def test_the_kills_are_spread_over_all_kinds() -> None:
    effects = [Effect(number, "write", "x") for number in range(1, 41)]
    effects[9], effects[19], effects[20] = (Effect(n, k, "x") for n, k in ((10, "commit"), (20, "put"), (21, "put")))
    assert [one.number for one in sample(effects, 1)] == [1]
    assert [one.number for one in sample(effects, 4)] == [1, 10, 21, 40]
    some = [one.number for one in sample(effects, 6)]
    assert len(set(some)) == 6
    assert {1, 10, 20, 21, 40} < set(some)
    assert sample(effects, 100) == effects
    same = [Effect(number, "put", "x") for number in range(1, 23)]
    assert [one.number for one in sample(same, 4)] == [1, 7, 17, 22]


def test_a_drill_that_fails_is_shown_and_keeps_no_other_from_being_played(tmp_path: Path) -> None:
    def fails(_world: World) -> str:
        raise Failed("$ ifas step\nexit code 1, not (0,)")

    def skips(_world: World) -> str:
        raise Skipped("no disk")

    drills = [Drill("one", "a", fails), Drill("two", "b", skips), Drill("three", "c", lambda _world: "fine")]
    played = play(drills, World(tmp_path))
    assert [one.state for one in played] == ["FAILED", "skipped", "ok"]
    told = page(played, "make drills", date(2026, 11, 27))
    assert "**FAILED**: exit code 1, not (0,)" in told
    assert "1 of 3 drills ended as they must, 1 FAILED, 1 skipped" in told


def test_the_command_ends_with_1_where_a_drill_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(_world: World) -> str:
        raise Failed("no")

    monkeypatch.setattr(run, "known", lambda: [Drill("one", "a", fails), Drill("two", "b", lambda _world: "")])
    page_file, told = tmp_path / "page.md", tmp_path / "told.json"
    assert run.main(["--page", str(page_file), "--json", str(told)]) == 1
    assert [one["state"] for one in read_json(told)] == ["FAILED", "ok"]
    assert "**FAILED**" in page_file.read_text()
    # What ended well is not played again: the second would be.
    monkeypatch.setattr(run, "known", lambda: [Drill("one", "a", lambda _world: "mended"), Drill("two", "b", fails)])
    assert run.main(["--page", str(page_file), "--after", str(told)]) == 0
    assert "mended" in page_file.read_text()
    assert "1 of them were played by an earlier call" in page_file.read_text()
    monkeypatch.setattr(run, "known", lambda: [Drill("one", "a", fails), Drill("two", "b", lambda _world: "")])
    assert run.main(["--only", "two", "--page", str(tmp_path / "none.md")]) == 0
    assert not (tmp_path / "none.md").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--only", "nobody"],
        ["--kills", "0"],
        ["--away", "-1"],
        ["--after", "no/such/file"],
        ["--json", "no/such/folder/told.json"],
        ["--page", "no/such/folder/page.md"],
    ],
)
def test_what_it_is_not_able_to_do_is_said_before_the_first_drill(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "known", lambda: [Drill("one", "a", lambda _world: pytest.fail("played"))])
    with pytest.raises(SystemExit) as ended:
        run.main(words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_an_outcome_of_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "known", lambda: [Drill("one", "a", lambda _world: pytest.fail("played"))])
    for content in ("", "[1]", '[{"state": "ok"}]'):
        (tmp_path / "told.json").write_text(content)
        with pytest.raises(SystemExit):
            run.main(["--after", str(tmp_path / "told.json")])


def test_every_step_is_killed_and_meets_a_full_disk() -> None:
    names = [one.name for one in run.known()]
    assert len(names) == len(set(names))
    for step in STEPS:
        assert {f"killed: {step}", f"full disk: {step}"} <= set(names)
