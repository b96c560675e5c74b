"""The gate: compares figures with a policy. It denies by default: a rule fails if a figure that it needs is missing.

A rule whose slice ends in `*` applies to every measured slice of that kind; a rule that compares with the champion also
to the champion's slices. A slice that nobody measured does not fail a `max` or `min` rule with `*`: name each slice
that must be there.

The gate is monotone in the number that a rule limits: a better number never turns a pass into a fail, and a tighter
limit never turns a fail into a pass. With `bound: interval` that number is the end of the interval, not the value, so a
better value with a wider interval can fail.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from ifas.promotion.policy import Limit, Policy, Rule

#: Rounding of decimal limits; far below one image in a million.
TOLERANCE = 1e-9

Metrics = Mapping[str, Any]


class RuleOutcome(BaseModel):
    """The result of one rule on one slice. `margin`: distance to the limit, negative if the rule failed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    metric: str
    slice: str
    kind: Limit
    limit: float
    value: float | None
    champion: float | None
    margin: float | None
    n: int | None
    passed: bool
    why: str
    reason: str


class Decision(BaseModel):
    """The gate's decision. It passes when every rule passed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    passed: bool
    policy: str
    policy_sha256: str
    rules: list[RuleOutcome]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json")


def decide(metrics: Metrics, champion: Metrics | None, policy: Policy) -> Decision:
    """Judges a candidate's figures.

    Args:
        metrics: the candidate's tree, as evaluation wrote it.
        champion: the same of the model it must not be worse than; None when there is none.
        policy: the rules.
    """
    outcomes = [
        outcome
        for rule in policy.rules
        for outcome in (_outcome(rule, name, metrics, champion) for name in _slices(rule, metrics, champion))
    ]
    return Decision(
        passed=all(outcome.passed for outcome in outcomes),
        policy=policy.name,
        policy_sha256=policy.sha256,
        rules=outcomes,
        notes=_notes(metrics, champion),
    )


def _slices(rule: Rule, metrics: Metrics, champion: Metrics | None) -> list[str]:
    """The slices a rule applies to. A change rule applies to the champion's, too: none of them may be left untested."""
    if not rule.slice.endswith(":*"):
        return [rule.slice]
    prefix = rule.slice[:-1]
    names = set(metrics.get("slices", {}))
    if champion is not None and rule.limit[0] in ("max_increase", "max_drop"):
        names |= set(champion.get("slices", {}))
    # No slice matches: the rule itself is returned and fails, since nothing that it asks for was measured.
    return sorted(name for name in names if name.startswith(prefix)) or [rule.slice]


def _outcome(rule: Rule, name: str, metrics: Metrics, champion: Metrics | None) -> RuleOutcome:
    kind, limit = rule.limit
    entry = _entry(metrics, name, rule.metric)
    value = _value(entry, rule)
    before = _number(_entry(champion, name, rule.metric).get("value")) if champion is not None else None
    margin: float | None = None
    if value is None:
        missing = entry.get("reason") or entry.get("no_interval") or "it is not in the metrics"
        passed, why = False, f"no {'interval' if rule.bound == 'interval' else 'value'}: {missing}"
    elif kind in ("max", "min"):
        margin = limit - value if kind == "max" else value - limit
        passed = margin >= -TOLERANCE
        shown = "pessimistic end of the interval" if rule.bound == "interval" else "value"
        why = f"{shown} {value:.4f}, {'at most' if kind == 'max' else 'at least'} {limit:g} allowed"
    elif before is None:
        passed = rule.missing_champion == "pass"
        whose = "there is no champion" if champion is None else f"the champion was not measured on {name}"
        why = f"value {value:.4f}; {whose} to compare with, and the rule says {rule.missing_champion}"
    else:
        worse = value - before if kind == "max_increase" else before - value
        margin = limit - worse
        passed = margin >= -TOLERANCE
        moved = "worse" if worse > 0 else "better"
        why = f"value {value:.4f}, champion {before:.4f}: {abs(worse):.4f} {moved}, at most {limit:g} worse allowed"
    return RuleOutcome(
        id=rule.id,
        metric=rule.metric,
        slice=name,
        kind=kind,
        limit=limit,
        value=value,
        champion=before,
        margin=margin,
        n=entry.get("n") if isinstance(entry.get("n"), int) else None,
        passed=passed,
        why=why,
        reason=rule.reason,
    )


def _entry(metrics: Metrics, name: str, metric: str) -> Mapping[str, Any]:
    entry = metrics.get("slices", {}).get(name, {}).get(metric)
    return entry if isinstance(entry, Mapping) else {}


def _value(entry: Mapping[str, Any], rule: Rule) -> float | None:
    """The number that the rule limits: the value, or the pessimistic end of its interval."""
    value = _number(entry.get("value"))
    if rule.bound == "value" or value is None:
        return value
    interval = entry.get("interval")
    if not isinstance(interval, (list, tuple)) or len(interval) != 2:
        return None
    return _number(interval[1] if rule.limit[0] == "max" else interval[0])


def _number(value: object) -> float | None:
    """A finite number, or None: every comparison with NaN is false."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _notes(metrics: Metrics, champion: Metrics | None) -> list[str]:
    """What a reviewer must know to understand the margins."""
    notes = []
    if metrics.get("data", {}).get("synthetic"):
        notes.append("the figures are synthetic: they prove that the chain works, not how good the model is")
    if champion is not None:
        ours, theirs = (m.get("data", {}).get("test_samples_sha256") for m in (metrics, champion))
        if ours != theirs:
            notes.append("the champion was measured on other test images: changes compare unlike data")
    return notes
