"""Audits of what earlier steps recorded: rejected frames, refused files, evidence against labels, release status."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ifas.core.manifest import STATUSES
from ifas.validation.section import ID_DIGITS, Section, Shown, a_few, table

if TYPE_CHECKING:
    import pandas as pd

#: The report notes it if a larger share of images has evidence against the label.
MOST_CONTRADICTED = 0.01
SHOWN = 12
LONGEST = 200


def label_audit(rows: pd.DataFrame) -> Section:
    """Images whose pixels contradict their label, as the caption step's specialists found."""
    listed = rows[rows["label_audit"].notna() & ~rows["label_audit"].isin(["", "[]"])]
    cases = [
        (str(i), str(s), _evidence(text))
        for i, s, text in listed[["sample_id", "pai_species", "label_audit"]].to_numpy()
    ]
    by_species = Counter(species for _, species, _ in cases)
    total = rows["pai_species"].value_counts()
    noted = len(cases) > MOST_CONTRADICTED * len(rows)
    return Section(
        id="label-audit",
        title="Labels that the image contradicts",
        about=f"{len(cases)} of {len(rows)} images have evidence against their label. A person should look at each; "
        f"more than {MOST_CONTRADICTED:.0%} is noted.",
        head=("species", "contradicted", "images"),
        rows=table((name, n, int(total[name])) for name, n in sorted(by_species.items())),
        flags=(
            f"{len(cases)} of {len(rows)} images have evidence against their label: "
            + a_few([f"{i[:ID_DIGITS]} ({species})" for i, species, _ in cases]),
        )
        if noted
        else (),
        pictures=tuple(Shown(id=i, value=f"{species}: {why}") for i, species, why in cases[:SHOWN]),
        facts={"contradicted": len(cases), "species": dict(sorted(by_species.items()))},
    )


def _evidence(text: str) -> str:
    """The entries of one cell in words; a cell that is not JSON is shown as it is."""
    try:
        entries = json.loads(text)
    except ValueError:
        return str(text)[:LONGEST]
    entries = entries if isinstance(entries, list) else [entries]
    words = [", ".join(f"{k} {v}" for k, v in one.items()) if isinstance(one, dict) else str(one) for one in entries]
    return "; ".join(words)[:LONGEST]


def release_status(rows: pd.DataFrame) -> Section:
    """How many images of each status there are, by class. An unknown status blocks."""
    count = rows.groupby([rows["status"].astype(str), rows["spoof_type"].astype(str)]).size()
    unknown = sorted(set(rows["status"].dropna().astype(str)) - set(STATUSES))
    nulls = int(rows["status"].isna().sum())
    blocking = [
        f"status {name!r} is not one of {', '.join(STATUSES)}: {_samples(rows[rows['status'] == name])}"
        for name in unknown
    ]
    if nulls:
        blocking.append(f"{nulls} images have no status: {_samples(rows[rows['status'].isna()])}")
    totals = {name: int((rows["status"] == name).sum()) for name in STATUSES}
    return Section(
        id="release-status",
        title="What may be trained on",
        about="Only released images are trained on; evaluation sees all.",
        head=("status", "class", "images"),
        rows=table((status, kind, int(n)) for (status, kind), n in count.items()),
        blocking=tuple(blocking),
        facts=totals,
    )


def _samples(rows: pd.DataFrame) -> str:
    """A few of these samples, and where they are."""
    columns = rows[["sample_id", "domain", "split", "spoof_type"]].to_numpy()
    return "sample " + a_few([f"{i[:ID_DIGITS]} (domain {d}, split {s}, class {kind})" for i, d, s, kind in columns])


def selection_audit(dataset: Mapping[str, Any]) -> Section | None:
    """Rejection rates of the quality filter, and refused files, as packing recorded them; None if it did not."""
    audit, refused = dataset.get("selection_audit"), dataset.get("refused")
    if not audit and not refused:
        return None
    audit = audit if isinstance(audit, Mapping) else {}
    flat: list[tuple[str, str]] = []
    _flatten("", {k: v for k, v in audit.items() if k != "flags"}, flat)
    refusals: Counter[str] = Counter()
    for one in refused if isinstance(refused, list) else []:
        if isinstance(one, Mapping):
            refusals[f"{one.get('pai_species') or 'unknown species'}, {one.get('domain') or 'unknown domain'}"] += 1
    flat += [(f"refused: {name}", str(n)) for name, n in sorted(refusals.items())]
    flags = tuple(_said(flag) for flag in audit.get("flags") or ())
    return Section(
        id="selection-audit",
        title="Rejected frames and refused files",
        about="Rejections by filter stage, class, species and domain, and files that could not be read.",
        head=("what", "value"),
        rows=tuple(flat[:200]),
        flags=flags,
        facts={"flags": list(flags), "refused": sum(refusals.values())},
    )


def _flatten(where: str, value: object, out: list[tuple[str, str]]) -> None:
    """Entries of a tree that hold no further tree, as (path, text)."""
    if isinstance(value, Mapping) and any(
        isinstance(v, Mapping | list) and v and isinstance(v, Mapping) for v in value.values()
    ):
        for key, inner in value.items():
            _flatten(f"{where} / {key}" if where else str(key), inner, out)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for number, inner in enumerate(value):
            _flatten(f"{where} {number + 1}", inner, out)
    else:
        out.append((where, _said(value)))


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_said(v)}" for k, v in value.items())
    if isinstance(value, list):
        return " to ".join(map(_said, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
