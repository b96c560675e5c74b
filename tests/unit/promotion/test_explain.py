"""What is said to flip a rule does flip it: the counts are checked by judging again with them."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifas.core.errors import GateError
from ifas.promotion.candidate import Candidate
from ifas.promotion.explain import explain, what_flips
from ifas.promotion.gate import RuleOutcome, decide
from ifas.promotion.policy import Policy, Rule

CHAMPION = "c0ffee000000"


def policy(*rules: dict[str, Any]) -> Policy:
    return Policy(
        name="p", rules=[Rule(**{"id": f"r{i}", "slice": "target", "reason": "b", **r}) for i, r in enumerate(rules)]
    )


def counted(errors: int, n: int, counts: str = "errors") -> dict[str, Any]:
    return {
        "value": errors / n,
        "interval": [max(0.0, errors / n - 0.1), min(1.0, errors / n + 0.1)],
        counts: errors,
        "n": n,
    }


def target(**entries: Any) -> dict[str, Any]:
    return {"slices": {"target": {"n_subjects": 30, **entries}}}


def flips(metrics: dict[str, Any], champion: dict[str, Any] | None = None, **rule: Any) -> tuple[bool, str]:
    (outcome,) = decide(metrics, champion, policy(rule), CHAMPION).rules
    return outcome.passed, what_flips(outcome, metrics)


@settings(max_examples=150)
@given(st.integers(1, 80), st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.1, 0.25, None]), st.booleans(), st.data())
def test_the_counts_are_right(n: int, drawn: float, fixed: float | None, higher: bool, data: st.DataObject) -> None:
    """With that many errors more or fewer the rule says otherwise, and with one less of them it does not."""
    errors, limit = data.draw(st.integers(0, n)), drawn if fixed is None else fixed
    metric, kind, name = ("explanation_medium", "min", "hits") if higher else ("bpcer", "max", "errors")

    def passes(wrong: int) -> bool:
        return flips(
            target(**{metric: counted(n - wrong if higher else wrong, n, name)}), metric=metric, **{kind: limit}
        )[0]

    passed, said = flips(
        target(**{metric: counted(n - errors if higher else errors, n, name)}), metric=metric, **{kind: limit}
    )
    found = re.fullmatch(r"(\d+) (more|fewer) errors? of \d+ would (fail|pass) it", said)
    if found is None:
        assert said.startswith("nothing")
        assert all(passes(wrong) for wrong in range(n + 1))
        return
    assert int(found[1]) > 0
    step = 1 if found[2] == "more" else -1
    assert (step, found[3]) == ((1, "fail") if passed else (-1, "pass"))
    there = errors + step * int(found[1])
    assert passes(there - step) == passed
    if 0 <= there <= n:
        assert passes(there) != passed


def test_every_species_that_is_over_the_limit_is_named() -> None:
    species = {"print.a4": counted(6, 40), "mask.paper": counted(3, 10), "cut": counted(0, 20)}
    metrics = target(apcer=species, apcer_max={**species["mask.paper"], "species": "mask.paper"})
    assert flips(metrics, metric="apcer_max", max=0.1) == (
        False,
        "2 fewer errors of 10 (mask.paper) and 2 fewer errors of 40 (print.a4) would pass it",
    )
    # Passed: the species that needs the fewest.
    assert flips(metrics, metric="apcer_max", max=0.3) == (True, "1 more error of 10 (mask.paper) would fail it")
    passed, said = flips(metrics, metric="apcer_max", max=0.1, bound="interval")
    assert not passed
    assert said == "the upper end of the interval of mask.paper would have to fall by 0.3000, from 0.4000 to 0.1"


def test_what_is_no_rate_is_told_in_numbers() -> None:
    auc = {"value": 0.9, "interval": [0.8, 0.95], "n": 40}
    assert flips(target(auc=auc), metric="auc", min=0.95) == (
        False,
        "the value would have to rise by 0.0500, from 0.9000 to 0.95",
    )
    assert flips(target(auc=auc), metric="auc", min=0.75, bound="interval") == (
        True,
        "the lower end of the interval may get worse by 0.0500, from 0.8000 to 0.75; any more would fail it",
    )
    assert flips(target(auc=auc), metric="auc", min=0.0)[1] == "nothing: no figure is beyond this limit"


def test_changes_are_told_as_how_much_worse() -> None:
    pair = {"value": 0.01, "interval": [-0.02, 0.05], "champion": 0.1, "n": 40}
    metrics = target(bpcer=counted(4, 40)) | {
        "against_champion": {"candidate": CHAMPION, "slices": {"target": {"bpcer": pair}}}
    }
    champion = target(bpcer=counted(4, 40))
    passed, said = flips(metrics, champion, metric="bpcer", max_increase=0.02, bound="interval")
    assert (passed, said) == (
        False,
        "the upper end of the interval of the change for the worse would have to fall by 0.0300, from 0.0500 to 0.02",
    )
    passed, said = flips(metrics, champion, metric="bpcer", max_increase=0.02)
    assert passed
    assert "the value of the change for the worse may get worse by 0.0100" in said


@pytest.mark.parametrize(
    ("entry", "rule", "said"),
    [
        ({}, {"max": 0.1}, "a measured figure"),
        (counted(0, 40), {"max": 0.1, "min_n": 50}, "10 more pictures; then"),
        (counted(0, 40), {"max": 0.1, "min_n": 50, "min_subjects": 31}, "10 more pictures and 1 more subjects"),
        ({"value": 0.0}, {"max": 0.1, "min_n": 50}, "50 more pictures (how many there are is unknown)"),
        ({"value": 0.0, "n": 4}, {"max": 0.1, "bound": "interval"}, "an interval"),
        (counted(0, 40), {"max_increase": 0.1}, "a difference to the champion"),
        (counted(0, 40), {"max_increase": 0.1, "missing_champion": "pass"}, "a champion that it is compared with"),
    ],
)
def test_where_it_did_not_come_to_the_limit(entry: dict[str, Any], rule: dict[str, Any], said: str) -> None:
    assert said in flips(target(bpcer=entry), metric="bpcer", **rule)[1]


def candidate(metrics: dict[str, Any], rules: Policy, **changed: Any) -> Candidate:
    fields = {
        "id": "a" * 12,
        "product": "door",
        "run_id": "r",
        "created": "",
        "state": "refused",
        "model_sha256": "",
        "evidence_sha256": "",
        "dataset_revision": "",
        "evidence": {},
        "metrics": metrics,
        "decision": decide(metrics, None, rules).as_dict(),
        "facts": {"policy": rules.model_dump(mode="json")},
    }
    return Candidate(**{**fields, **changed})


def test_failed_rules_come_first_then_those_that_nearly_failed() -> None:
    rules = policy(
        {"metric": "bpcer", "max": 0.9},
        {"metric": "bpcer", "max": 0.2},
        {"metric": "bpcer", "max": 0.05},
        {"metric": "auc", "min": 0.1},
    )
    found = explain(candidate(target(bpcer=counted(4, 40)), rules))
    assert [one.outcome.id for one in found] == ["r3", "r2", "r1", "r0"]
    assert found[1].as_dict()["number"] == pytest.approx(0.1)


def test_a_decision_of_an_older_version_is_explained_too() -> None:
    """It has the end of the interval as value, and does not say that this was bound."""
    rules = policy({"metric": "bpcer", "max": 0.15, "bound": "interval"})
    metrics = target(bpcer=counted(4, 40))
    decision = copy.deepcopy(candidate(metrics, rules).decision)
    later = set(RuleOutcome.model_fields) - {f for f, i in RuleOutcome.model_fields.items() if i.is_required()}
    for rule in decision["rules"]:
        rule["value"] = 0.2
        for name in later:
            del rule[name]
    (one,) = explain(candidate(metrics, rules, decision=decision))
    assert (one.outcome.bound, one.outcome.number) == ("interval", pytest.approx(0.2))
    assert "upper end of the interval would have to fall by 0.0500" in one.flips


@pytest.mark.parametrize("decision", [{}, {"rules": [{"id": "r"}]}, {"rules": None}, {"rules": [1]}])
def test_what_is_no_decision_is_an_error(decision: dict[str, Any]) -> None:
    with pytest.raises(GateError, match="does not hold the decision"):
        explain(candidate({}, policy({"metric": "bpcer", "max": 0.1}), decision=decision))
