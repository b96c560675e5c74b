"""Does an explanation fit: to the verdict it explains, and to the attack that was really made.

Both scores read the text by the keyword dictionary of Algorithm 1 (`core.taxonomy.media_named`). A negation ("no paper
is visible") counts as naming the medium; the captions that the model learns from do not contain any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.core.taxonomy import media_named
from ifas.evaluation.metrics import Rate

if TYPE_CHECKING:
    import pandas as pd


def spoof_type_named(explanation: str, accepted: bool) -> str:
    """The first attack medium the text names; else "live" for an accepted image and "" for a rejected one."""
    named = media_named(explanation)
    if named:
        return named[0]
    return "live" if accepted else ""


def agreement(rows: pd.DataFrame) -> Rate:
    """Explanations that name an attack medium exactly when the image was rejected: (agreeing, all explained)."""
    explained = rows[rows["explanation"].notna()]
    fits = [
        bool(media_named(text)) != bool(accepted)
        for text, accepted in zip(explained["explanation"], explained["verdict"], strict=True)
    ]
    return Rate(sum(fits), len(fits))


def right_medium(rows: pd.DataFrame) -> Rate:
    """Attacks that were rejected and explained: (whose first named medium is the true spoof type, all of them)."""
    caught = rows[(rows["label"] == "spoof") & rows["explanation"].notna()]
    caught = caught[~caught["verdict"].astype(bool)]
    return Rate(int((caught["spoof_type_named"] == caught["spoof_type"]).sum()), len(caught))
