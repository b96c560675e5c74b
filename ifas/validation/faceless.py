"""Images without a face that can be judged, as captioning found them: training leaves them out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.core.errors import FACE_REASONS
from ifas.validation.section import Section, Shown, table

if TYPE_CHECKING:
    import pandas as pd

#: Images that the report names and shows.
SHOWN = 50
#: Share of a group without a face from which the report raises it.
MANY = 0.05


def section(rows: pd.DataFrame) -> Section:
    """The report of these images.

    Args:
        rows: a captioned manifest.
    """
    refused = rows["face_refused"].notna()
    listed = rows[refused]
    reasons = {str(reason): int(n) for reason, n in listed["face_refused"].value_counts().sort_index().items()}
    groups = [
        (name, int(refused[chosen.index].sum()), len(chosen))
        for label in ("live", "spoof")
        for name, chosen in rows[rows["label"] == label].groupby(["domain", "pai_species"])
    ]
    many = [f"{species} of {domain}: {n} of {total}" for (domain, species), n, total in groups if n > MANY * total]
    count = f"{len(listed)} of {len(rows)} images have no face that can be judged"
    said = "; ".join(f"{FACE_REASONS.get(reason, reason)}: {n}" for reason, n in reasons.items())
    return Section(
        id="faceless",
        title="Images without a face that can be judged",
        about=f"{count}{f' ({said})' if said else ''}. Training leaves them out, in evaluation they are non-responses. "
        "docs/faces.md says what is refused.",
        head=("source", "sample id", "species", "why"),
        rows=table(listed[["source", "sample_id", "pai_species", "face_refused"]].head(SHOWN).to_numpy()),
        flags=(f"more than {MANY:.0%} of these have no face that can be judged: {'; '.join(many)}",) if many else (),
        pictures=tuple(
            Shown(id=str(sample), value=str(reason))
            for sample, reason in listed[["sample_id", "face_refused"]].head(SHOWN).to_numpy()
        ),
        facts={"without_face": reasons, "images": len(rows)},
    )
