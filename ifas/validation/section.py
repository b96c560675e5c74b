"""What one audit found, in the form that the report shows: a table, notes, and pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One sample whose picture is shown, and what is said below it."""

    id: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """Outcome of one audit.

    Args:
        about: what was measured and how, in plain words.
        head, rows: the table; cells are text.
        flags: what a person should look into.
        blocking: what stops the run.
        pictures: samples to show, the most telling first.
        facts: the same figures as JSON values.
    """

    id: str
    title: str
    about: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    flags: tuple[str, ...] = ()
    blocking: tuple[str, ...] = ()
    pictures: tuple[Shown, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


def table(rows: Iterable[Iterable[object]]) -> tuple[tuple[str, ...], ...]:
    """Cells as text: numbers with at most three digits after the point."""
    return tuple(tuple(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row) for row in rows)
