"""Which clauses a caption may say, given the measurements and the label; and which measurements contradict the label.

A clause is said when its specialist is sure enough and the clause fits the labelled spoof type (the conditional rule of
DCE, arXiv 2412.14233). Measurements that contradict the label never enter a caption: they go to the label audit, where
a person looks at the picture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ifas.captioning.specialists import Measurement, specialists
from ifas.core.claims import SPECIALISTS, SUPPORTED_FROM

if TYPE_CHECKING:
    import pandas as pd

#: Confidence from which a specialist's clause makes a label of another kind doubtful.
DOUBTED_FROM = 1.0
#: Clauses added to a caption at most, and words up to which one is added: the model's answer has to stay short.
MOST_CLAUSES, LONGEST = 2, 34


@dataclass(frozen=True)
class Clause:
    """A clause with its provenance."""

    text: str
    specialist: str
    value: float
    confidence: float


@dataclass(frozen=True)
class Described:
    """Clauses that may be said, the surest first, and evidence against the label."""

    clauses: tuple[Clause, ...]
    doubts: tuple[Clause, ...]


def describe(seen: Mapping[str, Measurement], spoof_type: str, *, conditional: bool = True) -> Described:
    """Clauses and doubts of one picture.

    Args:
        seen: measurements by specialist.
        spoof_type: of the label; `live` for bona fide.
        conditional: whether a clause must fit the label. Switched off to measure what the rule is worth.
    """
    clauses, doubts = [], []
    for name, one in specialists().items():
        found = seen.get(name)
        if found is None or found.confidence < SUPPORTED_FROM:
            continue
        clause = Clause(one.clause, name, round(found.value, 4), round(found.confidence, 4))
        fits = spoof_type in one.supports
        if fits or not conditional:
            clauses.append(clause)
        if spoof_type in one.refutes and found.confidence >= DOUBTED_FROM:
            doubts.append(clause)
    return Described(tuple(sorted(clauses, key=_surest)), tuple(sorted(doubts, key=_surest)))


def _surest(clause: Clause) -> tuple[float, str]:
    return (-clause.confidence, clause.specialist)


def compose(text: str, clauses: tuple[Clause, ...]) -> tuple[str, tuple[Clause, ...]]:
    """Adds clauses to a caption, and returns it with those of `clauses` that it now contains.

    A clause that the caption already says in other words counts as contained and is not added.
    """
    held: list[Clause] = []
    added: list[str] = []
    for clause in clauses:
        words = specialists()[clause.specialist].words
        if any(word in text.lower() for word in words):
            held.append(clause)
        elif len(added) < MOST_CLAUSES and len(text.split()) + len(clause.text.split()) <= LONGEST:
            held.append(clause)
            added.append(clause.text)
            text = f"{text} {clause.text[0].upper()}{clause.text[1:]}."
    return text, tuple(held)


def with_clauses(rows: pd.DataFrame, seen: Sequence[Mapping[str, Measurement]], *, conditional: bool) -> pd.DataFrame:
    """Captioned rows whose captions also say what specialists saw and the label allows.

    The columns `clauses` and `label_audit` hold clauses and doubts as JSON; `evidence` gets the confidences.
    """
    captions, clauses, audit, evidence = [], [], [], []
    for text, spoof_type, known, mine in zip(rows["caption"], rows["spoof_type"], rows["evidence"], seen, strict=True):
        found = describe(mine, str(spoof_type), conditional=conditional)
        caption, held = compose(str(text), found.clauses)
        captions.append(caption)
        clauses.append(_as_json(held))
        audit.append(_as_json(found.doubts) if found.doubts else None)
        sure = {name: round(one.confidence, 4) for name, one in mine.items()}
        evidence.append(json.dumps({**json.loads(known), SPECIALISTS: sure}))
    return rows.assign(caption=captions, clauses=clauses, label_audit=audit, evidence=evidence)


def _as_json(clauses: tuple[Clause, ...]) -> str:
    return json.dumps([asdict(clause) for clause in clauses])
