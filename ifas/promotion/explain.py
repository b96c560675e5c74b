"""What each rule of a decision rests on, and what would turn it the other way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ifas.core.errors import GateError
from ifas.promotion.candidate import Candidate
from ifas.promotion.figures import Metrics, count, entry_of, parts_of
from ifas.promotion.gate import TOLERANCE, RuleOutcome
from ifas.promotion.policy import CHANGES

NOTHING = "nothing: no figure is beyond this limit"


@dataclass(frozen=True, kw_only=True)
class Explained:
    """A rule's outcome, and in words what would flip it."""

    outcome: RuleOutcome
    flips: str

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values. `number` is what was compared with the limit."""
        return {**self.outcome.model_dump(mode="json"), "number": self.outcome.number, "flips": self.flips}


def explain(candidate: Candidate) -> Sequence[Explained]:
    """The rules of a candidate's decision as the ledger has it: failed ones first, then those that nearly failed.

    Raises:
        GateError: the ledger holds no decision that this version can read.
    """
    policy = candidate.facts.get("policy")
    rules = policy.get("rules", []) if isinstance(policy, Mapping) else []
    # Decisions of older versions do not say what was bound.
    bounds = {rule["id"]: rule.get("bound", "value") for rule in rules}
    try:
        outcomes = [
            RuleOutcome.model_validate({"bound": bounds.get(rule["id"], "value"), **rule})
            for rule in candidate.decision["rules"]
        ]
    except (ValidationError, KeyError, TypeError) as error:
        raise GateError(
            f"the ledger does not hold the decision about candidate {candidate.id}", "see `ifas show`"
        ) from error
    found = [Explained(outcome=one, flips=what_flips(one, candidate.metrics)) for one in outcomes]
    return sorted(found, key=lambda one: (one.outcome.passed, _margin(one.outcome)))


def _margin(outcome: RuleOutcome) -> float:
    """Nothing to measure a distance with comes first."""
    return -math.inf if outcome.margin is None else outcome.margin


def what_flips(outcome: RuleOutcome, metrics: Metrics) -> str:
    """What would make a failed rule pass, or one that passed fail.

    Args:
        metrics: the candidate's tree, which has the errors that a rate counts.
    """
    if outcome.number is None:
        return _without_a_number(outcome)
    if outcome.kind in CHANGES:
        return _other_end(outcome, f"the {_bound(outcome)} of the change for the worse")
    if outcome.bound == "value" and (counted := _by_counts(outcome, metrics)):
        return counted
    return _other_end(outcome, f"the {_bound(outcome)}")


def _bound(outcome: RuleOutcome) -> str:
    if outcome.bound == "value":
        return "value"
    of = f" of {outcome.species}" if outcome.species else ""
    return f"{'lower' if outcome.kind == 'min' else 'upper'} end of the interval{of}"


def _other_end(outcome: RuleOutcome, what: str) -> str:
    """How far the number is from its limit."""
    number, away = outcome.number or 0.0, abs(outcome.margin or 0.0)
    if not outcome.passed:
        direction = "rise" if outcome.kind == "min" else "fall"
        return f"{what} would have to {direction} by {away:.4f}, from {number:.4f} to {outcome.limit:g}"
    if _limits_nothing(outcome):
        return NOTHING
    return f"{what} may get worse by {away:.4f}, from {number:.4f} to {outcome.limit:g}; any more would fail it"


def _limits_nothing(outcome: RuleOutcome) -> bool:
    return outcome.limit == (0.0 if outcome.kind == "min" else 1.0)


def _by_counts(outcome: RuleOutcome, metrics: Metrics) -> str:
    """For a rate: how many pictures would have to be judged otherwise. Empty where the figure is no rate."""
    entries: dict[str, Mapping[str, Any]] = {**parts_of(metrics, outcome.slice, outcome.metric)} or {
        "": entry_of(metrics, outcome.slice, outcome.metric)
    }
    spare: dict[str, tuple[int, int]] = {}
    for species, entry in entries.items():
        n, errors = count(entry.get("n")), count(entry.get("errors"))
        hits = count(entry.get("hits"))
        if not n or (errors is None and hits is None):
            return ""
        if outcome.kind == "max" and errors is not None:
            spare[species] = math.floor((outcome.limit + TOLERANCE) * n) - errors, n
        elif outcome.kind == "min" and hits is not None:
            spare[species] = hits - math.ceil((outcome.limit - TOLERANCE) * n), n
        else:
            return ""
    if outcome.passed and _limits_nothing(outcome):
        return NOTHING
    if outcome.passed:
        species, (left, n) = min(spare.items(), key=lambda item: item[1])
        # Counts that contradict the value explain nothing; neither do they below.
        return f"{_errors(left + 1, 'more')} of {n}{_of(species)} would fail it" if left >= 0 else ""
    wrong = [f"{_errors(-left, 'fewer')} of {n}{_of(species)}" for species, (left, n) in spare.items() if left < 0]
    return f"{' and '.join(wrong)} would pass it" if wrong else ""


def _errors(number: int, word: str) -> str:
    return f"{number} {word} error{'' if number == 1 else 's'}"


def _of(species: str) -> str:
    return f" ({species})" if species else ""


def _without_a_number(outcome: RuleOutcome) -> str:
    """Where there was nothing to compare with the limit."""
    of = f" of {outcome.species}" if outcome.species else ""
    needed = [
        f"{least - (there or 0)} more {what}{of if what == 'pictures' else ''}"
        + (" (how many there are is unknown)" if there is None else "")
        for least, there, what in (
            (outcome.min_n, outcome.n, "pictures"),
            (outcome.min_subjects, outcome.n_subjects, "subjects"),
        )
        if least is not None and (there is None or there < least)
    ]
    if outcome.value is None:
        return "a measured figure; then its limit counts"
    if needed:
        return f"{' and '.join(needed)}; then its limit counts"
    if outcome.kind not in CHANGES:
        return "an interval; then its limit counts"
    if outcome.passed:
        return "a champion that it is compared with; then its limit counts"
    rival = "the champion" if outcome.against is None else f"baseline {outcome.against}"
    return f"a difference to {rival}; then its limit counts"
