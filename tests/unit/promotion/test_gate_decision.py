"""The gate denies by default. That it is monotone: `test_gate_monotone`; intervals and champion: `test_gate_bounds`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ifas.core.measures import MEASURES
from ifas.promotion.gate import decide
from ifas.promotion.policy import Policy, Rule, load_policy

SLICES = ("source_test", "target", "spoof_type:print", "spoof_type:replay", "handling:webp80", "handling:halved")


def tree(**values: float | None) -> dict[str, Any]:
    """Metrics with one slice, `target`."""
    return {"slices": {"target": {name: {"value": value, "n": 40} for name, value in values.items()}}}


def policy(**rule: Any) -> Policy:
    return Policy(name="p", rules=[Rule(**{"id": "r", "slice": "target", "reason": "because", **rule})])


def test_value_limits_and_margins() -> None:
    decision = decide(tree(bpcer=0.15), None, policy(metric="bpcer", max=0.2))
    (rule,) = decision.rules
    assert decision.passed
    assert rule.margin == pytest.approx(0.05)
    assert (rule.value, rule.limit, rule.n) == (0.15, 0.2, 40)
    failed = decide(tree(auc=0.85), None, policy(metric="auc", min=0.9))
    assert not failed.passed
    assert failed.rules[0].margin == pytest.approx(-0.05)
    assert json.loads(json.dumps(failed.as_dict()))["rules"][0]["reason"] == "because"


def test_the_limit_itself_passes() -> None:
    assert decide(tree(bpcer=0.2), None, policy(metric="bpcer", max=0.2)).passed
    # 0.3 - 0.1 is 0.19999999999999998 in binary, 0.7 - 0.5 is 0.19999999999999996, 0.8 - 0.6 is a bit above 0.2.
    for now, before in ((0.3, 0.1), (0.8, 0.6)):
        assert decide(tree(hter=now), tree(hter=before), policy(metric="hter", max_increase=0.2)).passed


@pytest.mark.parametrize("metrics", [tree(bpcer=None), tree(), {}, {"slices": {"target": {"bpcer": None}}}])
def test_missing_value_fails(metrics: dict[str, Any]) -> None:
    for limit in ({"max": 1.0}, {"max_increase": 1.0, "missing_champion": "pass"}):
        decision = decide(metrics, None, policy(metric="bpcer", **limit))
        assert not decision.passed
        assert decision.rules[0].margin is None


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), True, "0.1"])
def test_what_is_no_number_fails(value: Any) -> None:
    assert not decide(tree(bpcer=value), None, policy(metric="bpcer", max=1.0)).passed


def test_the_reason_for_a_missing_value_is_passed_on() -> None:
    metrics = {"slices": {"target": {"auc": {"value": None, "reason": "no attack image in this slice", "n": 3}}}}
    assert "no attack image" in decide(metrics, None, policy(metric="auc", min=0.5)).rules[0].why


def test_change_against_the_champion() -> None:
    rule = policy(metric="auc", max_drop=0.02)
    assert decide(tree(auc=0.9), tree(auc=0.91), rule).passed
    worse = decide(tree(auc=0.9), tree(auc=0.95), rule)
    assert not worse.passed
    assert worse.rules[0].champion == 0.95
    assert worse.rules[0].margin == pytest.approx(-0.03)
    assert "0.0500 worse" in worse.rules[0].why


def test_missing_champion_is_what_the_rule_says() -> None:
    assert not decide(tree(auc=0.9), None, policy(metric="auc", max_drop=0.02)).passed
    assert decide(tree(auc=0.9), None, policy(metric="auc", max_drop=0.02, missing_champion="pass")).passed
    # The champion was never measured on this slice: the same as no champion.
    new = decide(tree(auc=0.9), tree(), policy(metric="auc", max_drop=0.02, missing_champion="pass"))
    assert new.passed
    assert "not measured on target" in new.rules[0].why


def test_wildcard_lets_every_slice_veto() -> None:
    metrics = {"slices": {f"spoof_type:{name}": {"auc": {"value": v}} for name, v in (("print", 0.9), ("mask", 0.4))}}
    decision = decide(metrics, None, policy(metric="auc", slice="spoof_type:*", min=0.5))
    assert {rule.slice: rule.passed for rule in decision.rules} == {"spoof_type:print": True, "spoof_type:mask": False}
    assert not decision.passed
    assert not decide(tree(auc=1.0), None, policy(metric="auc", slice="device:*", min=0.5)).passed


@pytest.mark.parametrize("limit", [{"max_drop": 0.1}, {"min": 0.5}, {"min": 0.5, "bound": "interval"}])
def test_a_slice_only_the_champion_has_vetoes_every_rule(limit: dict[str, Any]) -> None:
    """A model that was no longer tested on masks has not shown that it still stops them."""
    before = {"slices": {f"spoof_type:{name}": {"auc": {"value": 0.9}} for name in ("print", "mask")}}
    now = {"slices": {"spoof_type:print": {"auc": {"value": 0.99, "interval": [0.9, 1.0]}}}}
    decision = decide(now, before, policy(metric="auc", slice="spoof_type:*", **limit))
    assert {rule.slice: rule.passed for rule in decision.rules} == {"spoof_type:print": True, "spoof_type:mask": False}
    assert "the champion was measured on spoof_type:mask, this candidate was not" in decision.rules[0].why
    # Of other kinds, and where the rule names one slice, the champion's slices change nothing.
    assert decide(now, before, policy(metric="auc", slice="spoof_type:print", min=0.5)).passed


def test_bound_interval_takes_the_pessimistic_end() -> None:
    metrics = {"slices": {"target": {"bpcer": {"value": 0.0, "interval": [0.0, 0.3], "n": 9}}}}
    assert decide(metrics, None, policy(metric="bpcer", max=0.1)).passed
    (rule,) = decide(metrics, None, policy(metric="bpcer", max=0.1, bound="interval")).rules
    assert not rule.passed
    assert (rule.value, rule.interval, rule.number, rule.bound) == (0.0, (0.0, 0.3), pytest.approx(0.3), "interval")
    for damaged in (None, [0.0], [0.2, 0.1], [0.0, float("nan")], "0.1", {"low": 0, "high": 0}):
        metrics["slices"]["target"]["bpcer"]["interval"] = damaged
        assert not decide(metrics, None, policy(metric="bpcer", max=1.0, bound="interval")).passed


def test_a_value_outside_of_its_interval_counts_where_it_is_worse() -> None:
    """Of a skewed bootstrap."""
    metrics = {"slices": {"target": {"auc": {"value": 0.8, "interval": [0.9, 0.99], "n": 9}}}}
    (rule,) = decide(metrics, None, policy(metric="auc", min=0.85, bound="interval")).rules
    assert not rule.passed
    assert rule.number == pytest.approx(0.8)


def test_what_the_gate_does_not_promise() -> None:
    """A better value with a wider interval can fail, and a slice that nobody measured fails no limit of a `*` rule."""
    bound = policy(metric="bpcer", max=0.1, bound="interval")
    sure = {"slices": {"target": {"bpcer": {"value": 0.08, "interval": [0.07, 0.09]}}}}
    better = {"slices": {"target": {"bpcer": {"value": 0.05, "interval": [0.0, 0.2]}}}}
    assert decide(sure, None, bound).passed
    assert not decide(better, None, bound).passed
    every = policy(metric="auc", slice="spoof_type:*", min=0.5)
    masks = {"slices": {f"spoof_type:{name}": {"auc": {"value": v}} for name, v in (("print", 0.9), ("mask", 0.4))}}
    assert not decide(masks, None, every).passed
    del masks["slices"]["spoof_type:mask"]
    assert decide(masks, None, every).passed
    assert not decide(masks, None, policy(metric="auc", slice="spoof_type:mask", min=0.5)).passed


def test_notes_for_the_reviewer() -> None:
    ours = {**tree(auc=0.9), "data": {"synthetic": True, "test_samples_sha256": "a"}}
    theirs = {**tree(auc=0.9), "data": {"test_samples_sha256": "b"}}
    notes = decide(ours, theirs, policy(metric="auc", max_drop=0.1)).notes
    assert any("synthetic" in note for note in notes)
    assert any("other test images" in note for note in notes)


def test_demo_policy_on_good_and_bad_models() -> None:
    def model(good: bool) -> dict[str, Any]:
        share = {m: (1.0 if (MEASURES[m].better == "higher") == good else 0.0) for m in MEASURES}
        return {"slices": {n: {m: {"value": v, "n": 30} for m, v in share.items()} for n in SLICES}}

    for name in ("demo", "permissive"):
        assert decide(model(True), None, load_policy(f"builtin:{name}")).passed
        assert decide(model(True), model(True), load_policy(f"builtin:{name}")).passed
    bad = decide(model(False), model(True), load_policy("builtin:demo"))
    assert not any(rule.passed for rule in bad.rules)


#: The demo's policy has slack: 40 images of each handling, and its own model must pass with any seed.
@pytest.mark.parametrize(
    ("name", "metric", "limit"),
    [
        ("demo", "flips", 0.2),
        ("demo", "handled_non_response", 0.05),
        ("strict", "flips", 0.05),
        ("strict", "handled_non_response", 0.05),
    ],
)
def test_verdicts_that_change_on_the_way_are_limited_after_each_handling(name: str, metric: str, limit: float) -> None:
    """One handling after which more than that flip fails the model; so does a model that was not tried."""

    def failed(share: float, slices: tuple[str, ...]) -> list[str]:
        entry = {"value": share, "interval": [0.0, share], "n": 200}
        trees = {one: {metric: entry if one == slices[0] else {**entry, "value": 0.0}} for one in slices}
        metrics = {"slices": {one: {"n_subjects": 20, **tree} for one, tree in trees.items()}}
        rules = decide(metrics, None, load_policy(f"builtin:{name}")).rules
        return [rule.slice for rule in rules if rule.metric == metric and not rule.passed]

    assert failed(limit, ("handling:webp80",)) == []
    assert failed(limit + 0.01, ("handling:webp80",)) == ["handling:webp80"]
    assert failed(limit + 0.01, ("target",)) == ["handling:*"]


@pytest.mark.parametrize("policy", ["demo", "strict"])
def test_a_model_that_names_every_attack_alike_is_refused(policy: str) -> None:
    """Nine of ten attacks are of that kind, so its share of right answers is high; no text contradicts."""
    best = {m: float(MEASURES[m].better == "higher") for m in MEASURES}
    sure = {m: {"value": v, "interval": [max(0.0, v - 0.05), min(1.0, v + 0.05)], "n": 200} for m, v in best.items()}
    by_type = {"print": sure["explanation_medium"], "replay": {"value": 0.0, "interval": [0.0, 0.1], "n": 3}}
    medium = {"value": 0.9, "interval": [0.85, 0.95], "n": 200}
    slices = {name: {**sure, "explanation_medium": medium} for name in SLICES}
    slices["target"] |= {"explanation_medium_by_type": by_type, "explanation_medium_least": by_type["replay"]}
    decision = decide({"slices": slices}, None, load_policy(f"builtin:{policy}"))
    failed = [rule.id for rule in decision.rules if not rule.passed and rule.id.startswith("explanations")]
    assert failed == ["explanations-right-for-every-type" + "-in-new-places" * (policy == "strict")]
