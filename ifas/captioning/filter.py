"""The filter of Algorithm 1, and its counterpart for bona fide captions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ifas.core.taxonomy import media_named

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

#: What is said of a bona fide picture when the medium clauses were all that the captioner said.
NOTHING_LEFT = "A face in front of the camera."

_SENTENCES = re.compile(r"(?<=[.!?])\s+")
_CLAUSES = re.compile(r"\s*[,;]\s+|\s+and\s+")


def filter_captions(rows: pd.DataFrame, caption: str = "caption_general") -> npt.NDArray[np.bool_]:
    """Which rows form D_S (I-FAS, arXiv 2501.01720, Algorithm 1).

    A row is kept when its caption holds a keyword whose spoof type equals the row's label. The paper adds a sample
    once per matching keyword if read literally; a mask adds it once. A further keyword of another type does not
    remove a row: the algorithm asks only whether a right one occurs.

    Args:
        rows: attacks, with the columns `spoof_type` and `caption`.
        caption: name of the column with the captions.

    Returns:
        bool (rows,).
    """
    import numpy as np

    pairs = zip(rows[caption], rows["spoof_type"], strict=True)
    return np.array([spoof_type in media_named(text) for text, spoof_type in pairs], dtype=bool)


def without_media(text: str) -> tuple[str, int]:
    """A caption without the clauses that name an attack medium, and how many were cut.

    The general captioner is sometimes wrong about a bona fide picture. A training text that says "Yes" and then
    names a screen would contradict itself, so the clause goes: clauses end at sentence ends, commas, semicolons and
    "and". `NOTHING_LEFT` stands in where no clause remains.
    """
    cut = 0
    kept = []
    for sentence in _SENTENCES.split(text.strip()):
        if not media_named(sentence):
            kept.append(sentence)
            continue
        clauses = _CLAUSES.split(sentence.rstrip(".!?"))
        clean = [clause for clause in clauses if clause and not media_named(clause)]
        cut += len(clauses) - len(clean)
        # A clause that leaned on the one before it ("..., with a rim") can't open a sentence; the opening can.
        if clean and clean[0] == clauses[0]:
            kept.append(", ".join(clean) + ".")
        elif clean:
            cut += len(clean)
    return (" ".join(kept) or NOTHING_LEFT), cut
