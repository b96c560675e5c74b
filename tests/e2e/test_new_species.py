"""The story of `make demo-new-species`: a new attack is learned and shipped; the same, poisoned, is stopped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.story import page, run
from tests.story.stage import PRODUCT, Stage
from tests.story.world import MASK

#: Three trainings; twice as long where another test file has the other core.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

Told = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("story")


@pytest.fixture(scope="module")
def told(root: Path) -> Told:
    """Every act, played once."""
    return run.play(root)


def rules_of(judged: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """Slice -> the outcome of a rule of the policy."""
    return {rule["slice"]: rule for rule in judged["rules"] if rule["id"] == name}


def test_the_champion_was_evaluated_on_quarantined_masks_and_accepts_them(told: Told) -> None:
    accepted = told["quarantine"]["accepted"].values()
    assert sum(one["value"] * one["n"] for one in accepted) > 0.3 * sum(one["n"] for one in accepted)
    assert "spoof_type:mask" not in told["champion"]["slices"], "no mask is in the data that it was trained on"


def test_masks_are_learned(told: Told) -> None:
    gain = told["retrain"]["paired"]["spoof_type:mask"]["apcer_max"]
    assert gain["champion"] > 0.3
    assert gain["interval"][1] < 0, "the whole interval of the paired difference is a gain"
    assert told["retrain"]["slices"]["spoof_type:mask"]["apcer_max"]["value"] < gain["champion"]


def test_nobody_else_pays_for_it(told: Told) -> None:
    judged = told["retrain"]
    assert judged["state"] == "pending"
    assert all(rule["passed"] for rule in judged["rules"])
    worse = rules_of(judged, "no-worse-on-any-attack")
    assert set(worse) == {"spoof_type:mask", "spoof_type:print", "spoof_type:replay"}
    assert all(
        "on the same pictures" in rule["why"]
        for rule in [*worse.values(), *rules_of(judged, "no-worse-for-people").values()]
    )


def test_the_reviewer_read_of_masks_and_signed_the_approval(told: Told, root: Path) -> None:
    assert any("mask" in row for row in told["review"]["read"])
    shown = told["review"]["shown"]
    assert shown["state"] == "approved"
    last = shown["history"][-1]
    assert (last["to_state"], last["actor"]) == ("approved", "rita")
    # The ledger finds a statement that no registered key of hers has made.
    stage = Stage(root)
    verified = stage.ifas("ledger", "verify", "-c", stage.config).text
    assert "nothing was altered" in verified
    assert last["statement"]["signatures"]


def test_the_new_bento_rejects_a_mask_that_the_champion_accepted(told: Told) -> None:
    asked = told["answers"]["asked"]
    assert {one["truth"] for one in asked} >= {
        "live",
        MASK,
        "print.flat",
        "print.bent",
        "replay.phone",
        "replay.tablet",
    }
    assert asked[-1]["truth"] == MASK
    assert "champion accepted" in asked[-1]["why"]
    assert asked[-1]["answer"]["verdict"] == "spoof"
    assert {one["answer"]["candidate"] for one in asked} == {told["retrain"]["candidate"]}


def test_poisoned_masks_are_stopped_by_a_rule_about_masks(told: Told, root: Path) -> None:
    judged = told["poisoned"]
    assert (judged["state"], judged["code"]) == ("refused", 8)
    failed = [(rule["id"], rule["slice"]) for rule in judged["rules"] if not rule["passed"]]
    assert ("no-worse-on-any-attack", "spoof_type:mask") in failed
    assert "spoof_type:mask" in judged["said"]
    assert told["refused"]["approve"] == 0
    assert any("mask" in row.lower() for row in told["refused"]["failed"])
    stage = Stage(root)
    stage.ifas("package", judged["candidate"], "--out", root / "poisoned-bento", "-c", stage.config, codes=(6,))
    assert not (root / "poisoned-bento").exists()
    states = [line.split()[:2] for line in stage.ifas("candidates", "-c", stage.config).text.splitlines()]
    assert [told["retrain"]["candidate"], "approved"] in states, f"the champion of {PRODUCT} stays"


def test_the_page_has_the_pictures_that_it_names(told: Told, root: Path, tmp_path: Path) -> None:
    for written in (run.PAGE, tmp_path / "new-species.md"):
        if written != run.PAGE:
            page.write(told, root / "pictures", written)
        named = re.findall(r"!\[[^]]+\]\(([^)]+)\)", written.read_text(encoding="utf-8"))
        assert len(named) == len(page.PICTURES)
        assert all((written.parent / name).stat().st_size <= page.LARGEST for name in named)
