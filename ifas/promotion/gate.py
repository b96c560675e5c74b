"""The gate: compares figures with a policy. It denies by default: a rule fails if a figure that it needs is missing.

A rule whose slice ends in `*` applies to every slice of that kind that the candidate or the champion was measured on,
so that a slice which the champion had and the candidate lacks fails. A slice that nobody measured does not fail a
`max` or `min` rule with `*`: name each slice that must be there.

A change rule with `against` compares with a baseline of the evaluation, champion or not.

With `bound: interval` a rule limits the pessimistic end of an interval: of the figure, or in a change rule of the
paired difference. For a figure that is the worst of several species it is the worst end of all.

The gate is monotone in the number that a rule limits: a better number never turns a pass into a fail, and neither do a
narrower interval, a looser limit or more pictures and subjects. A better value with a wider interval can fail.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ifas.promotion.figures import (
    Change,
    Figure,
    Interval,
    Metrics,
    Support,
    change,
    change_against,
    figure,
    of_baseline,
    paired,
)
from ifas.promotion.policy import CHANGES, Limit, Policy, Rule

#: Rounding of decimal limits; far below one image in a million.
TOLERANCE = 1e-9
HOW_TO_PAIR = "repeat the run while it is the champion: its evaluation scores the champion on the same pictures"


class RuleOutcome(BaseModel):
    """The result of one rule on one slice.

    Args:
        value: the candidate's figure itself, whatever is bound.
        margin: distance of the number that is bound to the limit, negative if it failed; None where it did not come
            to that: something is missing, or there are too few pictures.
        interval: of the figure, or in a change rule of the paired difference.
        difference: candidate minus champion, in a change rule.
        species: whose figure is bound, where it is the worst of several; or the one with too few pictures or subjects.
        n, n_subjects: what that figure rests on.
        against: baseline that was compared with; `champion` and `difference` are then of it.
    """

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
    bound: Literal["value", "interval"] = "value"
    interval: Interval | None = None
    difference: float | None = None
    species: str | None = None
    n_subjects: int | None = None
    min_n: int | None = None
    min_subjects: int | None = None
    against: str | None = None

    @property
    def number(self) -> float | None:
        """The number that the limit was compared with; in a change rule how much worse than the champion."""
        if self.margin is None:
            return None
        return self.limit + self.margin if self.kind == "min" else self.limit - self.margin


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


def decide(metrics: Metrics, champion: Metrics | None, policy: Policy, champion_id: str | None = None) -> Decision:
    """Judges a candidate's figures.

    Args:
        metrics: the candidate's tree, as evaluation wrote it.
        champion: the same of the model it must not be worse than; None when there is none.
        policy: the rules.
        champion_id: the champion's id in the ledger. A paired difference counts only if it is against this one.
    """
    outcomes = [
        _outcome(rule, name, metrics, champion, champion_id)
        for rule in policy.rules
        for name in _slices(rule, metrics, None if rule.against else champion)
    ]
    return Decision(
        passed=all(outcome.passed for outcome in outcomes),
        policy=policy.name,
        policy_sha256=policy.sha256,
        rules=outcomes,
        notes=_notes(metrics, champion, champion_id, outcomes),
    )


def _slices(rule: Rule, metrics: Metrics, champion: Metrics | None) -> list[str]:
    """The slices a rule applies to: the champion's, too, since none of them may be left untested."""
    if not rule.slice.endswith(":*"):
        return [rule.slice]
    prefix = rule.slice[:-1]
    names = set(metrics.get("slices", {})) | set((champion or {}).get("slices", {}))
    # No slice matches: the rule itself is returned and fails, since nothing that it asks for was measured.
    return sorted(name for name in names if name.startswith(prefix)) or [rule.slice]


def _outcome(rule: Rule, name: str, metrics: Metrics, champion: Metrics | None, champion_id: str | None) -> RuleOutcome:
    kind, limit = rule.limit
    changes = kind in CHANGES
    found = figure(metrics, name, rule.metric, "value" if changes else rule.bound)
    moved = _moved(rule, name, metrics, champion, champion_id) if changes else None
    support, fewest = found.support, found.fewest
    if moved and moved.support:
        support, fewest = moved.support, (moved.support, moved.support)
    interval = (moved.interval if moved else None) if changes else found.interval
    margin: float | None = None
    if found.value is None:
        passed, why = False, f"no value: {_missing(found, name, metrics, champion)}"
    elif not changes:
        passed, margin, why = _limited(rule, found.value, found)
    elif rule.against is not None and (moved is None or (rule.bound == "interval" and moved.interval is None)):
        missing = of_baseline(metrics, rule.against, name, rule.metric)
        because = missing.get("no_interval") or missing.get("reason") or "evaluation did not compare with it"
        passed, why = False, f"no paired difference to baseline {rule.against}: {because}"
    elif champion is None and rule.against is None:
        passed = rule.missing_champion == "pass"
        why = _no_comparison(rule, found.value, "there is no champion")
    elif rule.bound == "interval" and (moved is None or moved.interval is None):
        missing = paired(metrics, champion_id, name, rule.metric)
        because = missing.get("no_interval") or missing.get("reason") or "the champion was not scored on these pictures"
        passed = False
        why = f"no paired difference: {because}; {HOW_TO_PAIR}"
    elif moved is None:
        passed = rule.missing_champion == "pass"
        why = _no_comparison(rule, found.value, f"the champion was not measured on {name}")
    else:
        passed, margin, why = _changed(rule, found.value, moved)
    if found.value is not None and (few := _too_few(rule, fewest)):
        # An interval of another species than the one with too few would mislead.
        interval = interval if few[0].species == support.species else None
        support, said = few
        passed, margin, why = False, None, f"{said}; {why}"
    return RuleOutcome(
        id=rule.id,
        metric=rule.metric,
        slice=name,
        kind=kind,
        limit=limit,
        value=found.value,
        champion=moved.champion if moved else None,
        margin=margin,
        n=support.n,
        passed=passed,
        why=why,
        reason=rule.reason,
        bound=rule.bound,
        interval=interval,
        difference=moved.value if moved else None,
        species=support.species,
        n_subjects=support.n_subjects,
        min_n=rule.min_n,
        min_subjects=rule.min_subjects,
        against=rule.against,
    )


def _moved(rule: Rule, name: str, metrics: Metrics, champion: Metrics | None, champion_id: str | None) -> Change | None:
    if rule.against is not None:
        return change_against(metrics, rule.against, name, rule.metric)
    return None if champion is None else change(metrics, champion, champion_id, name, rule.metric)


def _limited(rule: Rule, value: float, found: Figure) -> tuple[bool, float | None, str]:
    """Whether a figure keeps its limit, by how much, and in words."""
    kind, limit = rule.limit
    number, shown = value, "value"
    if rule.bound == "interval":
        if found.interval is None:
            return False, None, f"no interval: {found.missing}"
        low, high = found.interval
        # A bootstrap's interval need not hold the value: the worse of the two counts.
        number = max(high, value) if kind == "max" else min(low, value)
        shown = "pessimistic end of the interval" + (f" (of {found.support.species})" if found.support.species else "")
    margin = limit - number if kind == "max" else number - limit
    return (
        margin >= -TOLERANCE,
        margin,
        f"{shown} {number:.4f}, {'at most' if kind == 'max' else 'at least'} {limit:g} allowed",
    )


def _changed(rule: Rule, value: float, moved: Change) -> tuple[bool, float | None, str]:
    """Whether a figure is not too much worse than that of the champion, or of a baseline, by how much, and in words."""
    kind, limit = rule.limit
    sign = 1 if kind == "max_increase" else -1
    worse = sign * moved.value
    number = worse
    where = " on the same pictures" if moved.paired else ""
    rival = "champion" if rule.against is None else f"baseline {rule.against}"
    before = "" if moved.champion is None else f", {rival} {moved.champion:.4f}{where}"
    why = f"value {value:.4f}{before}: {abs(worse):.4f} {'worse' if worse > 0 else 'better'}"
    if rule.bound == "interval" and moved.interval is not None:
        number = max(worse, *(sign * end for end in moved.interval))
        why += f", at the pessimistic end {abs(number):.4f} {'worse' if number > 0 else 'better'}"
    margin = limit - number
    return margin >= -TOLERANCE, margin, f"{why}, at most {limit:g} worse allowed"


def _too_few(rule: Rule, fewest: tuple[Support, Support]) -> tuple[Support, str] | None:
    """What a figure rests on where that is less than the rule asks for, and what is said of it."""
    pictures, subjects = fewest
    for least, there, what, support in (
        (rule.min_n, pictures.n, "pictures", pictures),
        (rule.min_subjects, subjects.n_subjects, "subjects", subjects),
    ):
        if least is not None and (there is None or there < least):
            of = f" of {support.species}" if support.species else ""
            if what == "subjects" and support.of_slice:
                of = " in the slice"
            number = "an unknown number of" if there is None else f"only {there}"
            return support, f"it rests on {number} {what}{of}, at least {least} are needed"
    return None


def _no_comparison(rule: Rule, value: float, why: str) -> str:
    return f"value {value:.4f}; {why} to compare with, and the rule says {rule.missing_champion}"


def _missing(found: Figure, name: str, metrics: Metrics, champion: Metrics | None) -> str:
    if name not in metrics.get("slices", {}) and name in (champion or {}).get("slices", {}):
        return f"the champion was measured on {name}, this candidate was not"
    return found.missing


def _notes(
    metrics: Metrics, champion: Metrics | None, champion_id: str | None, outcomes: list[RuleOutcome]
) -> list[str]:
    """What a reviewer must know to understand the margins."""
    notes = []
    if metrics.get("data", {}).get("synthetic"):
        notes.append("the figures are synthetic: they prove that the chain works, not how good the model is")
    if champion is not None:
        ours, theirs = (m.get("data", {}).get("test_samples_sha256") for m in (metrics, champion))
        compared = [one for one in outcomes if one.difference is not None and one.against is None]
        if ours != theirs and any(not paired(metrics, champion_id, one.slice, one.metric) for one in compared):
            notes.append("the champion was measured on other test images: changes compare unlike data")
    return notes
