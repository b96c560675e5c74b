"""The filter of Algorithm 1, and its counterpart for bona fide captions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ifas.captioning.sentences import NOTHING_LEFT, sentences, without_clauses
from ifas.core.taxonomy import media_named

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

_JOINTS = re.compile(r"\s*[,;]\s+|\s+and\s+")


def filter_captions(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which rows form D_S (I-FAS, arXiv 2501.01720, Algorithm 1).

    A row is kept when its caption contains a keyword whose spoof type equals the row's label. Read literally, the
    paper adds a sample once per matching keyword; here it is added once. A further keyword of another type does not
    remove a row: the algorithm asks only whether a right keyword occurs.

    Args:
        rows: attacks, with the columns `spoof_type` and `caption_general`.

    Returns:
        bool (rows,).
    """
    import numpy as np

    pairs = zip(rows["caption_general"], rows["spoof_type"], strict=True)
    return np.array([spoof_type in media_named(text) for text, spoof_type in pairs], dtype=bool)


def without_media(text: str) -> tuple[str, int]:
    """A caption without the clauses that name an attack medium, and how many were cut.

    The general captioner is sometimes wrong about a bona fide picture. A training text that says "Yes" and then
    names a screen would contradict itself, so such clauses are cut. Clauses end at sentence ends, commas, semicolons
    and "and". Where no clause remains, the caption is `NOTHING_LEFT`.
    """
    cut = 0
    kept = []
    for sentence in sentences(text):
        if media_named(sentence):
            sentence, clauses = without_clauses(sentence, media_named, _JOINTS)
            cut += clauses
        kept.append(sentence)
    return (" ".join(s for s in kept if s) or NOTHING_LEFT), cut
