"""What a reader found in a raw dataset, counted, before anything is decoded or packed."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from ifas.data.readers import Scan

#: Paths that are named; the rest is counted.
NAMED = 20


def findings(scan: Scan) -> dict[str, Any]:
    """Counts as plain JSON: subjects, media, files, labels, species, splits; what was refused or not recognised."""

    def counted(values: list[str]) -> dict[str, int]:
        return dict(sorted(Counter(values).items()))

    samples = scan.samples
    unreadable = [s.source for s in samples if _unreadable(s.path)]
    return {
        "dataset": scan.name,
        "licence": scan.licence,
        "subjects": len({s.subject_id for s in samples}),
        "media": len({s.media_id for s in samples}),
        "files": len(samples),
        "frames": sum(s.container == "image" for s in samples),
        "videos": sum(s.container != "image" for s in samples),
        "labels": counted([s.label for s in samples]),
        "species": counted([s.pai_species for s in samples]),
        "splits": counted([s.split for s in samples]),
        "domains": counted([s.domain for s in samples]),
        "refused": {"count": len(scan.refused), "first": [f"{r.source}: {r.reason}" for r in scan.refused[:NAMED]]},
        "unreadable": {"count": len(unreadable), "first": unreadable[:NAMED]},
        "unrecognised": {"count": len(scan.unrecognised), "first": list(scan.unrecognised[:NAMED])},
        "notes": list(scan.notes),
    }


def _unreadable(path: str) -> bool:
    """Missing, empty, or not ours to read. Whether it holds an image is seen when it is packed."""
    try:
        return os.stat(path).st_size == 0 or not os.access(path, os.R_OK)
    except OSError:
        return True


def lines(found: dict[str, Any]) -> list[str]:
    """The findings for a person, one fact a line."""
    said = [
        f"{'dataset':<15}{found['dataset']}",
        f"{'subjects':<15}{found['subjects']}",
        f"{'media':<15}{found['media']}",
        f"{'frames':<15}{found['frames']} images"
        + (f", and those of {found['videos']} videos" if found["videos"] else ""),
    ]
    said += [
        f"{name:<15}" + ", ".join(f"{key} {n}" for key, n in found[name].items())
        for name in ("labels", "species", "splits")
    ]
    for name, words in (("refused", "refused"), ("unreadable", "not readable"), ("unrecognised", "not recognised")):
        said.append(f"{words:<15}{found[name]['count']}")
        said += [f"  {one}" for one in found[name]["first"]]
    return said + [f"{'note':<15}{note}" for note in found["notes"]]
