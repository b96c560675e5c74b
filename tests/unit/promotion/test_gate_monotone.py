"""The gate is monotone: what is better, surer or of more people never fails what passed, nor does a looser rule."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ifas.core.measures import MEASURES
from ifas.promotion.figures import PARTS
from ifas.promotion.gate import decide
from ifas.promotion.policy import LIMITS, WITHOUT_INTERVAL, Policy, Rule

SLICES = ("target", "spoof_type:print", "spoof_type:replay")
#: Every kind of figure: lower and higher are better, with parts and without.
METRICS = ("apcer_max", "bpcer", "auc", "explanation_medium_least")
CHAMPION = "c0ffee000000"

shares = st.floats(0, 1)
#: Trees and what makes them better are drawn by a seed: hundreds of figures, of which a rule reads a few.
seeds = st.integers(0, 2**32)
#: Ends of what a difference can be; a share is from 0.
WHOLE, EITHER = (0.0, 1.0), (-1.0, 1.0)


def entry(by: Random, ends: tuple[float, float] = WHOLE) -> dict[str, Any]:
    """A figure. Seldom a part is missing, which fails a rule; a value may lie outside of its interval."""
    found: dict[str, Any] = {
        "value": by.uniform(*ends),
        "interval": sorted(by.uniform(*ends) for _ in range(2)),
        "n": by.randint(0, 60),
        "n_subjects": by.randint(0, 60),
    }
    return {name: value if by.random() < 0.95 else None for name, value in found.items()}


def metrics_tree(seed: int, champion: str = "") -> dict[str, Any]:
    """Metrics of some slices; with differences to a champion where one is named."""
    by = Random(seed)
    slices: dict[str, Any] = {}
    for name in by.sample(SLICES, by.randint(1, len(SLICES))):
        slices[name] = {metric: entry(by) for metric in METRICS} | {"n_subjects": by.randint(0, 60)}
        for metric in set(METRICS) & set(PARTS):
            slices[name][PARTS[metric]] = {kind: entry(by) for kind in ("print", "mask") if by.random() < 0.8}
    tree: dict[str, Any] = {"slices": slices}
    if champion:
        differences = {name: {metric: entry(by, EITHER) for metric in METRICS} for name in slices}
        tree["against_champion"] = {"candidate": champion, "slices": differences}
    return tree


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    rules = []
    few = st.one_of(st.none(), st.integers(1, 60))
    for i in range(draw(st.integers(1, 3))):
        metric = draw(st.sampled_from(METRICS))
        kind = draw(st.sampled_from([k for k, better in LIMITS.items() if better == MEASURES[metric].better]))
        rule = Rule(
            id=f"r{i}",
            metric=metric,
            slice=draw(st.sampled_from([*SLICES, "spoof_type:*"])),
            reason="b",
            bound=draw(st.sampled_from(["value", "interval"])),
            missing_champion=draw(st.sampled_from(["pass", "fail"])),
            min_n=draw(few),
            min_subjects=draw(few),
            **{kind: draw(shares)},
        )
        rule.check()
        rules.append(rule)
    return Policy(name="p", rules=rules)


#: Mostly compared with this champion, in pairs: that is where most can go wrong.
candidates = st.builds(metrics_tree, seeds, st.sampled_from([CHAMPION, CHAMPION, CHAMPION, "", "0ther0000000"]))
champions = st.one_of(*[st.builds(metrics_tree, seeds)] * 3, st.none())


def figures(tree: dict[str, Any]) -> Iterator[tuple[dict[str, Any], float]]:
    """Every figure of a candidate's tree, those of species and differences too, and the best that it can be."""
    for slices, worst in ((tree["slices"], 0.0), (tree.get("against_champion", {}).get("slices", {}), -1.0)):
        for found in slices.values():
            for metric in METRICS:
                best = 1.0 if MEASURES[metric].better == "higher" else worst
                yield found[metric], best
                yield from ((part, best) for part in found.get(PARTS.get(metric, ""), {}).values())


def improve(found: dict[str, Any], best: float, by: Random) -> None:
    """Moves the value towards the best and the interval with it, then makes the interval narrower."""
    step = by.random()
    if found["value"] is not None:
        found["value"] += step * (best - found["value"])
    if found["interval"] is not None:
        low, high = (end + step * (best - end) for end in found["interval"])
        inner = low + by.random() * (high - low)
        found["interval"] = [low + by.random() * (inner - low), high - by.random() * (high - inner)]


def never_worse(before: Any, after: Any) -> None:
    for was, now in zip(before.rules, after.rules, strict=True):
        assert now.passed or not was.passed, f"{was}\n{now}"
    assert after.passed or not before.passed


@settings(max_examples=300)
@given(candidates, champions, policies(), seeds)
def test_a_better_figure_never_turns_a_pass_into_a_fail(
    metrics: dict[str, Any], champion: dict[str, Any] | None, rules: Policy, seed: int
) -> None:
    by = Random(seed)
    better = copy.deepcopy(metrics)
    for found, best in figures(better):
        if by.random() < 0.8:
            improve(found, best, by)
    never_worse(decide(metrics, champion, rules, CHAMPION), decide(better, champion, rules, CHAMPION))


@settings(max_examples=300)
@given(candidates, champions, policies(), st.integers(0, 50))
def test_more_pictures_and_subjects_never_turn_a_pass_into_a_fail(
    metrics: dict[str, Any], champion: dict[str, Any] | None, rules: Policy, more: int
) -> None:
    larger = copy.deepcopy(metrics)
    for found in [*(found for found, _ in figures(larger)), *larger["slices"].values()]:
        found.update({name: found[name] + more for name in ("n", "n_subjects") if found.get(name) is not None})
    never_worse(decide(metrics, champion, rules, CHAMPION), decide(larger, champion, rules, CHAMPION))


@settings(max_examples=300)
@given(candidates, champions, policies(), seeds)
def test_a_looser_rule_never_turns_a_pass_into_a_fail(
    metrics: dict[str, Any], champion: dict[str, Any] | None, rules: Policy, seed: int
) -> None:
    """Looser: the limit, fewer pictures and subjects, the value in place of the interval's end."""
    by = Random(seed)
    looser = []
    for rule in rules.rules:
        kind, limit = rule.limit
        towards = 0.0 if kind == "min" else 1.0
        update: dict[str, Any] = {kind: limit + by.random() * (towards - limit)}
        for name in ("min_n", "min_subjects"):
            least = getattr(rule, name)
            update[name] = least and by.choice([None, by.randint(1, least)])
        if by.random() < 0.5:
            update["bound"] = "value"
        looser.append(rule.model_copy(update=update))
    before = decide(metrics, champion, rules, CHAMPION)
    never_worse(before, decide(metrics, champion, Policy(name="p", rules=looser), CHAMPION))


@settings(max_examples=50)
@given(candidates, champions, policies())
def test_every_rule_has_its_say(metrics: dict[str, Any], champion: dict[str, Any] | None, rules: Policy) -> None:
    decision = decide(metrics, champion, rules, CHAMPION)
    assert {rule.id for rule in decision.rules} == {rule.id for rule in rules.rules}
    assert decision.passed == all(rule.passed for rule in decision.rules)
    for rule in decision.rules:
        assert rule.margin is None or rule.passed == (rule.margin >= -1e-9)
        assert (rule.margin is None) == (rule.number is None)
    assert decision == type(decision).model_validate(decision.as_dict())


def test_every_metric_that_can_have_an_interval_may_be_bound_by_it() -> None:
    for metric, measure in MEASURES.items():
        for kind in (kind for kind, better in LIMITS.items() if better == measure.better):
            if metric not in WITHOUT_INTERVAL:
                Rule(id="r", metric=metric, slice="target", reason="b", bound="interval", **{kind: 0.5}).check()
