"""The same question asked in other ways: does the answer stay the same?

The verdict is read from the likelihood of Yes and No. Some test images are also asked

- by multiple choice, "A. real person B. print ...", once for each cyclic order of the options. An answer that goes with
  the letter instead of the option is position bias. The choice that counts is that of the mean likelihood over orders;
- openly: text is decoded without a forced verdict, and read by its first word and the media that it names.

A model that never saw such questions will do badly; the figures say so. An open answer that says neither is an outcome
of its own, and agrees with no verdict.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ifas.core.config import EvaluateConfig, ProtocolConfig
from ifas.core.release_status import released
from ifas.core.taxonomy import media_named
from ifas.evaluation.rates import Rate, people

if TYPE_CHECKING:
    import pandas as pd

    from ifas.faces.face import Face

#: Spoof type -> the option that stands for it, in the first order.
OPTIONS = {"live": "real person", "print": "print", "replay": "screen", "mask": "mask"}
LETTERS = "ABCD"
#: Columns of modes.parquet: the option chosen in each order (JSON), the one of the mean likelihood, the open text, and
#: what it says: `live`, `spoof`, or null.
COLUMNS = ("sample_id", "chosen_by_order", "chosen", "open_text", "open_says")
_FIRST = re.compile(r"\w+")


class Asking(Protocol):
    """A judge that answers other questions than its own."""

    def choose(self, faces: Sequence[Face], question: str, letters: str) -> npt.NDArray[np.float64]:
        """Likelihood of each letter as the first token of the answer, (B, letters); rows sum to 1."""
        ...

    def say(self, faces: Sequence[Face]) -> Sequence[str]:
        """What it answers to its own question where nothing is forced, the verdict included."""
        ...


def orders() -> list[tuple[str, ...]]:
    """Each cyclic order of the options, by spoof type."""
    kinds = tuple(OPTIONS)
    return [kinds[first:] + kinds[:first] for first in range(len(kinds))]


def question(order: Sequence[str]) -> str:
    """The multiple-choice question with the options in this order."""
    options = " ".join(f"{letter}. {OPTIONS[kind]}" for letter, kind in zip(LETTERS, order, strict=True))
    return f"What does this photo show? {options}. Answer with the letter."


def chosen(predictions: pd.DataFrame, protocol: ProtocolConfig, config: EvaluateConfig) -> list[int]:
    """Index labels of `evaluate.modes.images` released test images with a score, evenly over the sides of the protocol
    and bona fide and the attack species: one of each in turn. The seed and the ids decide which, nothing else."""
    if not config.modes.images:
        return []
    rows = released(predictions)
    domains = [*protocol.source_domains, *protocol.target_domains]
    rows = rows[(rows["split"] == "test") & rows["score"].notna() & rows["domain"].isin(domains)]
    rows = rows.drop_duplicates("sample_id")
    order = [hashlib.sha256(f"{config.seed} {sample}".encode()).hexdigest() for sample in rows["sample_id"]]
    rows = rows.assign(_order=order, _side=rows["domain"].isin(protocol.target_domains)).sort_values("_order")
    turn = rows.groupby(["_side", "pai_species"]).cumcount()
    return sorted(rows.assign(_turn=turn).sort_values(["_turn", "_order"]).index[: config.modes.images])


def asked(judge: Asking, faces: Sequence[Face]) -> list[tuple[str, str, str, str | None]]:
    """The values of `COLUMNS`, without the id, of each face."""
    likely = np.zeros((len(faces), len(OPTIONS)))
    by_order = []
    kinds = list(OPTIONS)
    for order in orders():
        shares = judge.choose(faces, question(order), LETTERS)
        by_order.append([order[best] for best in shares.argmax(axis=1)])
        likely += shares[:, [order.index(kind) for kind in kinds]]
    texts = judge.say(faces)
    return [
        (json.dumps(list(answers)), kinds[best], text, says(text))
        for answers, best, text in zip(zip(*by_order, strict=True), likely.argmax(axis=1), texts, strict=True)
    ]


def says(text: str) -> str | None:
    """What an open answer says, `live` or `spoof`: its first word where that is Yes or No, else `spoof` where it names
    an attack medium; None where it says neither."""
    found = _FIRST.search(text)
    first = found[0].lower() if found else ""
    if first in ("yes", "no"):
        return "live" if first == "yes" else "spoof"
    return "spoof" if media_named(text) else None


def with_modes(predictions: pd.DataFrame, modes: pd.DataFrame | None) -> pd.DataFrame:
    """Predictions with `COLUMNS`, null for images that were not asked. `modes`: None: none were."""
    import pandas as pd

    table = pd.DataFrame(columns=list(COLUMNS), dtype=object) if modes is None else modes
    return predictions.merge(table[list(COLUMNS)].drop_duplicates("sample_id"), how="left", on="sample_id")


def figures(rows: pd.DataFrame) -> dict[str, Any]:
    """The measures of a slice whose name begins with `choice_` or `open_`.

    Args:
        rows: of `with_modes`, with `verdict`.
    """
    rows = rows[rows["chosen"].notna() & rows["verdict"].notna()]
    accepted = rows["verdict"].astype(bool)
    moved = rows["chosen_by_order"].map(lambda answers: len(set(json.loads(answers))) > 1)
    wrong = {
        "choice_position_bias": moved,
        "choice_disagreement": (rows["chosen"] == "live") != accepted,
        "open_disagreement": rows["open_says"] != accepted.map({True: "live", False: "spoof"}),
        "open_unparsed": rows["open_says"].isna(),
    }
    missing = {"value": None, "reason": "no image of this slice was asked in other ways (evaluate.modes)", "n": 0}
    of = people(rows)
    return {name: Rate.of(mask.astype(bool), of).entry() if len(rows) else {**missing} for name, mask in wrong.items()}
