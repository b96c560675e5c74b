"""Results of the rules, and their text: which split, class, domain or sample is wrong, and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ifas.validation.rules import Rule
from ifas.validation.section import ID_DIGITS, SAID

Status = Literal["passed", "failed", "broken", "not checked"]


@dataclass(frozen=True)
class Example:
    """One case that breaks a rule.

    Args:
        id: a sample id, or a column, split, class, domain or spoof type.
        value: what is wrong with it.
        where: domain, split and class of a sample; empty for other cases.
    """

    id: str
    value: str
    where: str = ""


@dataclass(frozen=True)
class Finding:
    """The result of one rule. `observed`: how many cases break it; `examples`: the first of them."""

    rule: Rule
    status: Status
    observed: str
    examples: tuple[Example, ...] = ()
    broken: int = 0

    @property
    def blocks(self) -> bool:
        """Whether this stops the run. A blocking rule that could not be checked stops it, too."""
        return self.rule.severity == "blocking" and self.status != "passed"

    @property
    def said(self) -> str:
        """The finding in words: how many cases, a few of them with what is wrong, and what is allowed."""
        if self.status == "broken":
            return f"the check itself is broken, nothing is known about the data: {self.observed}"
        if self.status != "failed" or not self.examples:
            return self.observed
        return f"not so for {self.observed}: {_cases(self.examples, self.broken)}. Expected: {self.rule.expected}"


@dataclass(frozen=True)
class ValidationReport:
    """Outcome of all rules.

    Args:
        passed: every blocking rule was checked and holds, and no section blocks.
        blocking_failures: title and finding of each blocking rule that failed or is broken.
        summary: one line.
        facts: counts and the status of each rule, JSON values.
    """

    passed: bool
    blocking_failures: tuple[str, ...]
    summary: str
    facts: dict[str, Any]


def _cases(examples: Sequence[Example], total: int) -> str:
    """The examples as text, cases with the same fault together; further cases are counted."""
    groups: dict[str, list[Example]] = {}
    for one in examples:
        groups.setdefault(one.value, []).append(one)
    texts, named = [], 0
    for value, group in list(groups.items())[:SAID]:
        shown = group[:SAID] if len(groups) == 1 else group[:1]
        named += len(shown)
        samples = "; ".join(f"sample {one.id[:ID_DIGITS]}, {one.where}" for one in shown if one.where)
        texts.append(f"{value} ({samples})" if samples else value)
    rest = total - named
    return "; ".join(texts) + (f"; and {rest} more" if rest > 0 else "")
