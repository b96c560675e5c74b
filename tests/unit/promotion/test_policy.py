"""Policies are strict: an unknown key, metric or slice is refused, and the error lists the known ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifas.core.errors import ConfigError
from ifas.core.measures import MEASURES
from ifas.promotion.policy import Policy, builtin_policies, load_policy


def write(path: Path, *rules: str) -> str:
    path.write_text("name: mine\nrules:\n" + "".join(f"  - {{id: r{i}, {rule}}}\n" for i, rule in enumerate(rules)))
    return str(path)


def test_builtin_policies_load() -> None:
    assert builtin_policies() == ["demo", "permissive", "strict"]
    for name in builtin_policies():
        policy = load_policy(f"builtin:{name}")
        assert policy.name == name
        assert all(rule.reason for rule in policy.rules)


def test_a_file(tmp_path: Path) -> None:
    source = write(tmp_path / "p.yaml", "metric: apcer_max, slice: target, max: 0.2, reason: because")
    policy = load_policy(source)
    assert policy.rules[0].limit == ("max", 0.2)
    assert policy.sha256 == load_policy(source).sha256
    looser = write(tmp_path / "q.yaml", "metric: apcer_max, slice: target, max: 0.3, reason: because")
    assert policy.sha256 != load_policy(looser).sha256
    # A whole number is a share too.
    assert load_policy(write(tmp_path / "r.yaml", "metric: auc, slice: target, min: 1, reason: b")).rules[0].min == 1


def test_strict_binds_intervals_in_every_rule_but_the_one_that_says_why_it_can_not() -> None:
    rules = load_policy("builtin:strict").rules
    bare = [rule for rule in rules if rule.bound == "value"]
    assert [rule.id for rule in bare] == ["explanations-without-contradiction"]
    assert "no interval of a share ends at 0" in bare[0].reason
    # The others can have one: an end of an interval is never 0 (or 1) itself.
    assert all(0 < rule.limit[1] < 1 for rule in rules if rule.bound == "interval")
    # The subjects of a slice are not those of its explained images.
    assert all(bool(rule.min_subjects) != rule.metric.startswith("explanation") for rule in rules)


def test_a_policy_that_sets_no_new_key_keeps_its_hash(tmp_path: Path) -> None:
    """Else each candidate that waits would count as judged by another policy, only because ifas was updated."""
    rule = "metric: auc, slice: target, max_drop: 0.1, bound: value, reason: b"
    policy = load_policy(write(tmp_path / "p.yaml", rule))
    assert policy.model_dump(mode="json")["rules"] == [
        {
            "id": "r0",
            "metric": "auc",
            "slice": "target",
            "reason": "b",
            "max": None,
            "min": None,
            "max_increase": None,
            "max_drop": 0.1,
            "bound": "value",
            "missing_champion": "fail",
        }
    ]
    assert policy.sha256 == "72a5d414644abbf3479efd4f5aa1ed6ad04b4610601be3dc018ab1381ec9367e"
    for more in ("min_n: 1", "min_subjects: 1"):
        other = load_policy(write(tmp_path / "q.yaml", f"{rule}, {more}"))
        assert other.sha256 != policy.sha256
        assert Policy.model_validate(other.model_dump(mode="json")) == other


def test_unknown_metric_lists_the_known_ones(tmp_path: Path) -> None:
    source = write(tmp_path / "p.yaml", "metric: apcr_max, slice: target, max: 0.2, reason: because")
    with pytest.raises(ConfigError, match="apcr_max") as caught:
        load_policy(source)
    assert source in caught.value.what
    assert "'r0'" in caught.value.what
    assert all(name in caught.value.fix for name in MEASURES)


@pytest.mark.parametrize("name", ["targets", "domain", "domain:", "colour:*", "target:*"])
def test_unknown_slice_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "p.yaml", f'metric: auc, slice: "{name}", min: 0.2, reason: because')
    with pytest.raises(ConfigError, match="unknown slice") as caught:
        load_policy(source)
    assert "source_test" in caught.value.fix
    assert "spoof_type:<value or *>" in caught.value.fix


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("metric: auc, slice: target, reason: b", "0 limits"),
        ("metric: auc, slice: target, min: 0.1, max_drop: 0.1, reason: b", "2 limits"),
        ("metric: auc, slice: target, max: 0.9, reason: b", "a better model could fail"),
        ("metric: bpcer, slice: target, min: 0.9, reason: b", "a better model could fail"),
        ("metric: bpcer, slice: target, max_drop: 0.9, reason: b", "a better model could fail"),
        ("metric: acer_not_iso, slice: target, max: 0.9, bound: interval, reason: b", "no interval: no model"),
        ("metric: acer_not_iso, slice: target, max_increase: 0.9, bound: interval, reason: b", "no interval"),
        ("metric: bpcer, slice: target, max: 0.2, min_n: 0, reason: b", "min_n"),
        ("metric: bpcer, slice: target, max: 0.2, min_subjects: 0, reason: b", "min_subjects"),
        ("metric: bpcer, slice: target, max: 0.2, min_n: 1.5, reason: b", "min_n"),
        ("metric: bpcer, slice: target, max: 0.2, min_n: true, reason: b", "min_n"),
        ("metric: bpcer, slice: target, max: 20, reason: b", "less than or equal to 1"),
        ("metric: bpcer, slice: target, max: '0.2', reason: b", "valid number"),
        ("metric: bpcer, slice: target, max: .nan, reason: b", "rules.0.max"),
        ("metric: bpcer, slice: target, maxx: 0.2, reason: b", "maxx"),
        ("metric: bpcer, slice: target, max: 0.2", "reason"),
        ("metric: bpcer, slice: target, max: 0.2, missing_champion: maybe, reason: b", "missing_champion"),
    ],
)
def test_bad_rules_are_refused(tmp_path: Path, rule: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_policy(write(tmp_path / "p.yaml", rule))


def test_bad_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    for text, said in (
        ("name: x\nrules: []", "rules"),
        ("- 1", "valid dictionary"),
        ("", "valid dictionary"),
        ("name: [", "not valid YAML"),
        ("!!python/object/apply:os.system [true]", "not valid YAML"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            load_policy(str(path))
    rule = "{id: a, metric: auc, slice: target, min: 0.5, reason: b}"
    path.write_text(f"name: x\nrules: [{rule}, {rule}]")
    with pytest.raises(ConfigError, match="two rules are called 'a'"):
        load_policy(str(path))
    with pytest.raises(ConfigError, match="can't be read"):
        load_policy(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="unknown builtin policy 'x'") as caught:
        load_policy("builtin:x")
    assert "demo, permissive, strict" in caught.value.fix
