"""What changed between two revisions of a dataset: rows, subjects, species, labels, captions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

#: Examples that are named; the rest is counted.
NAMED = 20


def diff(old: pd.DataFrame, new: pd.DataFrame) -> dict[str, Any]:
    """Differences of two manifests, captioned or not, as plain JSON. Rows are matched by `sample_id`.

    Returns:
        `rows`: came, went, kept. `subjects`: came, went, and those whose split changed. `species`: images before and
        after, where they differ. `labels`: rows whose species changed. `status`: rows whose standing changed.
        `captions`: rows whose caption came, went or changed, where either manifest has captions.
    """
    a, b = old.set_index("sample_id"), new.set_index("sample_id")
    both = b.index.intersection(a.index, sort=True)
    before, after = a.loc[both], b.loc[both]
    return {
        "rows": {
            "before": len(a),
            "after": len(b),
            "came": len(b.index.difference(a.index)),
            "went": len(a.index.difference(b.index)),
            "kept": len(both),
        },
        "subjects": _subjects(old, new),
        "species": _counts(old["pai_species"], new["pai_species"]),
        "labels": _changed(before, after, "pai_species"),
        "status": _changed(before, after, "status"),
        "captions": _captions(a, b, both),
    }


def _subjects(old: pd.DataFrame, new: pd.DataFrame) -> dict[str, Any]:
    splits = [{s: sorted(set(g)) for s, g in frame.groupby("subject_id")["split"]} for frame in (old, new)]
    a, b = splits
    came, went = sorted(b.keys() - a.keys()), sorted(a.keys() - b.keys())
    moved = [s for s in sorted(a.keys() & b.keys()) if a[s] != b[s]]
    return {
        "came": {"count": len(came), "first": came[:NAMED]},
        "went": {"count": len(went), "first": went[:NAMED]},
        "changed": {
            "count": len(moved),
            "first": [f"{s}: {', '.join(a[s])} -> {', '.join(b[s])}" for s in moved[:NAMED]],
        },
    }


def _counts(old: pd.Series, new: pd.Series) -> dict[str, list[int]]:
    a, b = (dict(column.value_counts()) for column in (old, new))
    return {s: [int(a.get(s, 0)), int(b.get(s, 0))] for s in sorted(a.keys() | b.keys()) if a.get(s) != b.get(s)}


def _changed(before: pd.DataFrame, after: pd.DataFrame, column: str) -> dict[str, Any]:
    if column not in before or column not in after:
        return {"count": 0, "first": []}
    differ = before[column].astype(str) != after[column].astype(str)
    rows = zip(before.index[differ], before[column][differ], after[column][differ], strict=True)
    first = [f"{str(i)[:12]}: {was} -> {now}" for (i, was, now), _ in zip(rows, range(NAMED), strict=False)]
    return {"count": int(differ.sum()), "first": first}


def _captions(a: pd.DataFrame, b: pd.DataFrame, both: pd.Index) -> dict[str, Any] | None:
    has = "caption" in a, "caption" in b
    if not any(has):
        return None
    if not all(has):
        return {"came": len(b) if has[1] else 0, "went": len(a) if has[0] else 0, "changed": {"count": 0, "first": []}}
    return {
        "came": len(b.index.difference(a.index)),
        "went": len(a.index.difference(b.index)),
        "changed": _changed(a.loc[both], b.loc[both], "caption"),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The differences for a person."""
    rows, subjects = found["rows"], found["subjects"]
    said = [
        f"images     {rows['before']} -> {rows['after']}: "
        f"{rows['came']} came, {rows['went']} went, {rows['kept']} kept",
        f"subjects   {subjects['came']['count']} came, {subjects['went']['count']} went, "
        f"{subjects['changed']['count']} changed their split",
    ]
    said += [f"  came     {s}" for s in subjects["came"]["first"]] + [
        f"  went     {s}" for s in subjects["went"]["first"]
    ]
    said += [f"  moved    {s}" for s in subjects["changed"]["first"]]
    said += [f"species    {s}: {a} -> {b}" for s, (a, b) in found["species"].items()]
    for name in ("labels", "status"):
        if found[name]["count"]:
            said += [f"{name:<10} {found[name]['count']} images changed", *(f"  {one}" for one in found[name]["first"])]
    captions = found["captions"]
    if captions:
        changed = captions["changed"]
        said.append(f"captions   {captions['came']} came, {captions['went']} went, {changed['count']} changed")
        said += [f"  {one}" for one in changed["first"]]
    return said
