"""Rules that bind the paired difference to a baseline, with or without a champion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ifas.core.errors import ConfigError
from ifas.promotion.explain import what_flips
from ifas.promotion.gate import RuleOutcome, decide
from ifas.promotion.policy import Policy, Rule, load_policy

NAME = "linear_probe"


def policy(**rule: Any) -> Policy:
    given = {"id": "r", "slice": "target", "reason": "because", "metric": "hter", "against": NAME, **rule}
    return Policy(name="p", rules=[Rule(**given)])


def metrics(value: float | None, interval: list[float] | None, slice_: str = "target", **more: Any) -> dict[str, Any]:
    pair = {"value": value, "interval": interval, "baseline": 0.2, "n": 80, "n_subjects": 12, **more}
    figure = {"value": 0.1, "interval": [0.05, 0.2], "n": 100}
    return {
        "data": {"test_samples_sha256": "ours"},
        "slices": {slice_: {"n_subjects": 30, "hter": figure}},
        "baselines": {NAME: {"slices": {slice_: {"hter": pair}}}},
    }


def judged(tree: dict[str, Any], rules: Policy, champion: dict[str, Any] | None = None) -> RuleOutcome:
    (outcome,) = decide(tree, champion, rules, "c0ffee000000" if champion else None).rules
    return outcome


def test_the_difference_to_the_baseline_is_bound_whether_or_not_there_is_a_champion() -> None:
    rules = policy(max_increase=0.0)
    for champion in (
        None,
        {"data": {"test_samples_sha256": "theirs"}, "slices": {"target": {"hter": {"value": 0.01}}}},
    ):
        better = decide(metrics(-0.1, [-0.15, -0.02]), champion, rules, "c0ffee000000" if champion else None)
        assert better.notes == [], "it was compared on the same pictures, whatever the champion was measured on"
        assert better.passed
        (outcome,) = better.rules
        assert (outcome.against, outcome.champion, outcome.difference) == (NAME, 0.2, -0.1)
        assert (outcome.n, outcome.n_subjects) == (80, 12)
        assert f"baseline {NAME} 0.2000 on the same pictures: 0.1000 better" in outcome.why
        assert not judged(metrics(0.01, [-0.02, 0.04]), rules, champion).passed


def test_the_pessimistic_end_may_be_bound() -> None:
    rules = policy(max_increase=0.0, bound="interval", min_subjects=10)
    assert judged(metrics(-0.1, [-0.15, -0.02]), rules).passed
    unsure = judged(metrics(-0.1, [-0.25, 0.03]), rules)
    assert not unsure.passed
    assert unsure.number == pytest.approx(0.03)
    assert "would have to fall by 0.0300" in what_flips(unsure, {})
    assert not judged(metrics(-0.1, [-0.15, -0.02]), policy(max_increase=0.0, min_subjects=13)).passed


@pytest.mark.parametrize("bound", ["value", "interval"])
def test_what_was_not_compared_fails(bound: str) -> None:
    rules = policy(max_increase=1.0, bound=bound)
    for tree, words in (
        ({**metrics(-0.1, [-0.2, 0.0]), "baselines": {}}, "evaluation did not compare with it"),
        ({**metrics(-0.1, [-0.2, 0.0]), "baselines": None}, "evaluation did not compare with it"),
        (metrics(None, None, reason="the baseline has no threshold"), "the baseline has no threshold"),
    ):
        outcome = judged(tree, rules)
        assert not outcome.passed
        assert words in outcome.why
        assert f"a difference to baseline {NAME}" in what_flips(outcome, tree)
    few = judged(metrics(-0.1, None, no_interval="one subject"), rules)
    assert few.passed == (bound == "value")


def test_a_rule_on_every_domain_takes_the_candidates_own() -> None:
    rules = policy(max_increase=0.0, slice="domain:*")
    champion = {"slices": {"domain:gone": {"hter": {"value": 0.1}}}}
    assert judged(metrics(-0.1, [-0.2, 0.0], "domain:kiosk"), rules, champion).slice == "domain:kiosk"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("metric: hter, slice: target, max: 0.1, against: x", "sets max against x"),
        ("metric: ece, slice: target, max_increase: 0.1, against: x", "compares ece with x"),
        ("metric: hter, slice: 'device:*', max_increase: 0.1, against: x", "compares with x on device:"),
        ("metric: hter, slice: target, max_increase: 0, against: x, missing_champion: pass", "sets missing_champion"),
        ("metric: hter, slice: target, max_increase: 0, against: ''", "against"),
    ],
)
def test_rules_that_could_never_hold_are_refused(rule: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(f"name: p\nrules: [{{id: r, {rule}, reason: b}}]\n")
    with pytest.raises(ConfigError) as caught:
        load_policy(str(file))
    assert words in caught.value.what


def test_a_policy_in_the_ledger_keeps_its_hash_and_reads_back() -> None:
    plain = Policy(name="p", rules=[Rule(id="r", metric="auc", slice="target", min=0.5, reason="b")])
    assert "against" not in plain.model_dump(mode="json")["rules"][0]
    bound = policy(max_increase=0.0)
    again = Policy.model_validate(bound.model_dump(mode="json"))
    assert (again, again.sha256) == (bound, bound.sha256)
