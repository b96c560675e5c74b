"""What a rule binds: the worst species' interval, enough pictures and people, the paired difference to the champion."""

from __future__ import annotations

from typing import Any

import pytest

from ifas.core.measures import MEASURES
from ifas.promotion.figures import PARTS
from ifas.promotion.gate import RuleOutcome, decide
from ifas.promotion.policy import Policy, Rule, load_policy

CHAMPION = "c0ffee000000"


def policy(**rule: Any) -> Policy:
    return Policy(name="p", rules=[Rule(**{"id": "r", "slice": "target", "reason": "because", **rule})])


def rate(value: float, low: float, high: float, n: int = 100, **more: Any) -> dict[str, Any]:
    return {"value": value, "interval": [low, high], "errors": round(value * n), "n": n, **more}


def target(**entries: Any) -> dict[str, Any]:
    return {"slices": {"target": {"n_subjects": 30, **entries}}}


def paired(
    value: float | None, interval: list[float] | None, metric: str = "bpcer", of: str = CHAMPION, **more: Any
) -> dict[str, Any]:
    """As evaluation writes the champion's figures on the candidate's pictures."""
    entry = {"value": value, "interval": interval, "champion": 0.10, "n": 80, **more}
    return {"against_champion": {"candidate": of, "model": "0" * 64, "slices": {"target": {metric: entry}}}}


def judged(metrics: dict[str, Any], rules: Policy, champion: dict[str, Any] | None = None, **ids: str) -> RuleOutcome:
    (outcome,) = decide(metrics, champion, rules, **ids).rules
    return outcome


def test_the_worst_upper_end_of_all_species_is_bound_with_its_own_n() -> None:
    """Few masks, all stopped: the rate of prints is worse, but of masks less is known."""
    species = {"print.a4": rate(0.05, 0.03, 0.08, 400), "mask.paper": rate(0.0, 0.0, 0.28, 10)}
    metrics = target(apcer=species, apcer_max={**species["print.a4"], "species": "print.a4"})
    by_value = judged(metrics, policy(metric="apcer_max", max=0.1))
    assert (by_value.passed, by_value.species, by_value.n) == (True, "print.a4", 400)
    bound = judged(metrics, policy(metric="apcer_max", max=0.1, bound="interval"))
    assert not bound.passed
    assert (bound.species, bound.n, bound.interval) == ("mask.paper", 10, (0.0, 0.28))
    assert bound.value == 0.05, "the value is still that of the figure"
    assert bound.number == pytest.approx(0.28)
    assert "of mask.paper" in bound.why
    species["mask.paper"] = rate(0.0, 0.0, 0.04, 90)
    assert judged(metrics, policy(metric="apcer_max", max=0.1, bound="interval")).species == "print.a4"


def test_the_worst_lower_end_of_all_spoof_types_is_bound() -> None:
    types = {"print": rate(0.7, 0.65, 0.75, 300), "mask": rate(0.8, 0.4, 0.95, 8)}
    metrics = target(
        explanation_medium_by_type=types, explanation_medium_least={**types["print"], "spoof_type": "print"}
    )
    rule = judged(metrics, policy(metric="explanation_medium_least", min=0.5, bound="interval"))
    assert (rule.passed, rule.species, rule.number) == (False, "mask", pytest.approx(0.4))


@pytest.mark.parametrize(("metric", "parts"), PARTS.items())
def test_a_species_without_an_interval_fails_the_rule_and_is_named(metric: str, parts: str) -> None:
    limit = {"min": 0.0} if MEASURES[metric].better == "higher" else {"max": 1.0}
    rules = policy(metric=metric, bound="interval", **limit)
    whole = {"print": rate(0.5, 0.4, 0.6), "mask": rate(0.5, 0.4, 0.6)}
    assert judged(target(**{metric: whole["print"], parts: whole}), rules).passed
    for damaged in ({"value": 0.5, "n": 3}, {"value": 0.5, "interval": None, "no_interval": "too few"}, None, 0.5):
        rule = judged(target(**{metric: whole["print"], parts: {**whole, "mask": damaged}}), rules)
        assert not rule.passed
        assert "no interval: mask has none" in rule.why
    for gone in ({}, None, [1]):
        rule = judged(target(**{metric: whole["print"], parts: gone}), rules)
        assert not rule.passed
        assert parts in rule.why


@pytest.mark.parametrize(("least", "passes"), [(100, True), (101, False)])
def test_too_few_pictures_fail_whatever_the_value(least: int, passes: bool) -> None:
    rule = judged(target(bpcer=rate(0.0, 0.0, 0.04)), policy(metric="bpcer", max=1.0, min_n=least))
    assert rule.passed == passes
    assert (rule.n, rule.min_n, rule.margin) == (100, least, 1.0 if passes else None)
    few = "it rests on only 100 pictures, at least 101 are needed; "
    assert rule.why == ("" if passes else few) + "value 0.0000, at most 1 allowed"


def test_subjects_are_those_of_the_figure_else_of_its_slice() -> None:
    rules = policy(metric="bpcer", max=1.0, min_subjects=20)
    assert judged(target(bpcer=rate(0.0, 0.0, 0.04)), rules).n_subjects == 30
    own = judged(target(bpcer=rate(0.0, 0.0, 0.04, n_subjects=19)), rules)
    assert (own.passed, own.n_subjects, own.min_subjects) == (False, 19, 20)
    assert "only 19 subjects, at least 20" in own.why
    of_slice = judged({"slices": {"target": {"n_subjects": 5, "bpcer": rate(0.0, 0.0, 0.04)}}}, rules)
    assert "only 5 subjects in the slice" in of_slice.why, "nobody counted those of the figure"
    for unknown in ({}, {"n_subjects": None}, {"n_subjects": "30"}, {"n_subjects": True}, {"n_subjects": -1}):
        metrics = {"slices": {"target": {"bpcer": {"value": 0.0}, **unknown}}}
        rule = judged(metrics, rules)
        assert not rule.passed
        assert "unknown number of subjects" in rule.why


@pytest.mark.parametrize("bound", ["value", "interval"])
def test_every_species_needs_enough_pictures(bound: str) -> None:
    """A species of few pictures is not hidden behind one of many."""
    species = {"print.a4": rate(0.05, 0.03, 0.09, 400), "mask.paper": rate(0.0, 0.0, 0.08, 45)}
    metrics = target(apcer=species, apcer_max={**species["print.a4"], "species": "print.a4"})
    rule = judged(metrics, policy(metric="apcer_max", max=0.1, min_n=50, bound=bound))
    assert not rule.passed
    assert (rule.n, rule.species) == (45, "mask.paper")
    assert rule.interval is None, "that of prints is not that of masks"
    assert "only 45 pictures of mask.paper" in rule.why
    assert judged(metrics, policy(metric="apcer_max", max=0.1, min_n=45, bound=bound)).passed


@pytest.mark.parametrize(
    ("interval", "passes"), [([-0.03, 0.02], True), ([-0.03, 0.021], False), ([-0.09, -0.05], True), (None, False)]
)
def test_the_pessimistic_end_of_the_paired_difference_is_bound(interval: list[float] | None, passes: bool) -> None:
    metrics = target(bpcer=rate(0.09, 0.05, 0.2)) | paired(-0.01, interval)
    rules = policy(metric="bpcer", max_increase=0.02, bound="interval")
    rule = judged(metrics, rules, target(bpcer=rate(0.3, 0.2, 0.4)), champion_id=CHAMPION)
    assert rule.passed == passes
    assert rule.difference == -0.01
    assert rule.champion == 0.10, "as it was on these pictures, not on its own"
    assert rule.interval == (tuple(interval) if interval else None)
    assert rule.n == 80
    if interval:
        assert rule.number == pytest.approx(max(interval[1], -0.01))
        assert "on the same pictures" in rule.why
    else:
        assert "no paired difference" in rule.why


def test_where_higher_is_better_the_lower_end_of_the_difference_is_bound() -> None:
    metrics = target(auc=rate(0.9, 0.85, 0.95)) | paired(0.01, [-0.03, 0.04], "auc")
    champion = target(auc=rate(0.9, 0.8, 0.95))
    strict, loose = (policy(metric="auc", max_drop=limit, bound="interval") for limit in (0.02, 0.03))
    assert not judged(metrics, strict, champion, champion_id=CHAMPION).passed
    assert judged(metrics, loose, champion, champion_id=CHAMPION).passed


def test_the_value_of_a_change_is_the_paired_one_too() -> None:
    """The champion's own figure is of other pictures, on which it was worse."""
    metrics = target(bpcer=rate(0.15, 0.1, 0.2)) | paired(0.05, [0.01, 0.09])
    rules, champion = policy(metric="bpcer", max_increase=0.02), target(bpcer=rate(0.3, 0.2, 0.4))
    rule = judged(metrics, rules, champion, champion_id=CHAMPION)
    assert not rule.passed
    assert (rule.difference, rule.champion, rule.number) == (0.05, 0.10, pytest.approx(0.05))


@pytest.mark.parametrize("against", [{}, paired(0.0, [0.0, 0.0], of="0ther0000000"), {"against_champion": "x"}])
def test_a_difference_to_another_champion_does_not_count(against: dict[str, Any]) -> None:
    metrics, champion = target(bpcer=rate(0.15, 0.1, 0.2)) | against, target(bpcer=rate(0.1, 0.05, 0.2))
    by_value = policy(metric="bpcer", max_increase=0.02)
    rule = judged(metrics, by_value, champion, champion_id=CHAMPION)
    assert not rule.passed
    assert rule.difference == pytest.approx(0.05)
    bound = policy(metric="bpcer", max_increase=1.0, bound="interval", missing_champion="pass")
    rule = judged(metrics, bound, champion, champion_id=CHAMPION)
    assert not rule.passed
    assert "no paired difference: the champion was not scored on these pictures" in rule.why
    assert "repeat the run" in rule.why
    # Who asks without the champion's id gets no paired difference either.
    assert not judged(metrics | paired(0.0, [0.0, 0.0]), bound, champion).passed


def test_why_there_is_no_difference_is_passed_on() -> None:
    metrics = target(bpcer=rate(0.15, 0.1, 0.2)) | paired(None, None, reason="the champion gave no answer")
    bound = policy(metric="bpcer", max_increase=1.0, bound="interval")
    rule = judged(metrics, bound, target(bpcer=rate(0.1, 0.05, 0.2)), champion_id=CHAMPION)
    assert "no paired difference: the champion gave no answer" in rule.why


def test_a_first_model_is_what_the_rule_says_under_bounds_too() -> None:
    for said in ("pass", "fail"):
        rules = policy(metric="bpcer", max_increase=0.0, bound="interval", missing_champion=said)
        rule = judged(target(bpcer=rate(0.15, 0.1, 0.2)), rules)
        assert rule.passed == (said == "pass")
        assert rule.margin is None


def test_the_note_about_other_pictures_is_for_changes_that_are_not_paired() -> None:
    ours = {**target(bpcer=rate(0.15, 0.1, 0.2)), **paired(0.0, [0.0, 0.0]), "data": {"test_samples_sha256": "a"}}
    theirs = {**target(bpcer=rate(0.1, 0.1, 0.2)), "data": {"test_samples_sha256": "b"}}
    rules = policy(metric="bpcer", max_increase=0.02)
    assert decide(ours, theirs, rules, CHAMPION).notes == []
    assert "other test images" in decide(ours, theirs, rules, "0ther0000000").notes[0]


def strictly(*, n: int = 400, subjects: int = 25, errors: float = 0.0) -> dict[str, Any]:
    """A model without errors but those given, with the intervals that n pictures give."""
    up = 3.84 / (n + 3.84)

    def entry(metric: str) -> dict[str, Any]:
        if MEASURES[metric].better == "higher":
            return {"value": 1.0, "interval": [1.0 - up, 1.0], "n": n}
        return {"value": errors, "interval": [0.0, errors + up], "n": n}

    tree: dict[str, Any] = {metric: entry(metric) for metric in MEASURES} | {"n_subjects": subjects}
    tree["explanation_contradictions"] = {"value": 0.0, "interval": [0.0, up], "n": n}
    for worst, parts in PARTS.items():
        tree[parts] = {"print": tree[worst], "mask": tree[worst]}
    names = ("target", "source_test", "spoof_type:print", "domain:office", "handling:webp80")
    return {"slices": {name: dict(tree) for name in names}}


def test_strict_passes_a_good_model_that_was_measured_on_enough_and_no_other() -> None:
    rules = load_policy("builtin:strict")

    def failed(metrics: dict[str, Any]) -> set[str]:
        return {rule.id for rule in decide(metrics, None, rules).rules if not rule.passed}

    assert failed(strictly()) == set()
    few = failed(strictly(n=30))
    assert {"target-worst-species", "every-spoof-type", "target-convenience", "explanations-agree"} <= few
    assert failed(strictly(subjects=9)) == {rule.id for rule in rules.rules if rule.min_subjects}
    assert {"target-worst-species", "every-domain-convenience"} <= failed(strictly(errors=0.12))


def test_one_error_more_never_turns_a_fail_into_a_pass() -> None:
    """Its interval may be narrower: 0 errors of 100 people leave 3.6 % possible, 1 of 5,000 images only 0.9 %."""
    rule = Rule(id="r", metric="bpcer", slice="target", max=0.03, bound="interval", reason="r")
    policy = Policy(name="p", rules=[rule])

    def passed(errors: int, interval: list[float]) -> bool:
        entry = {"value": errors / 5000, "interval": interval, "errors": errors, "n": 5000, "n_subjects": 100}
        return decide({"slices": {"target": {"bpcer": entry}}}, None, policy).passed

    assert not passed(0, [0.0, 0.0362])
    assert not passed(1, [0.0, 0.009])
    assert not passed(2, [0.0, 0.0035])
