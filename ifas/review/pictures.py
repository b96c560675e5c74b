"""The pictures of a page: the worst mistakes, and right verdicts with wrong words.

An image's id is the hash of its bytes, so that only an image that was judged is ever shown. What is sent is a small
JPEG, made anew of the decoded image; never the stored bytes, which may hold places, names or worse.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from ifas.core.errors import DataError
from ifas.core.imaging import decode
from ifas.core.taxonomy import media_named
from ifas.evaluation import gallery

if TYPE_CHECKING:
    import pandas as pd

    from ifas.review.judged import Dataset

ID = re.compile(r"[0-9a-f]{64}")
SIDE = 320
#: Cards of each group.
SHOWN = 8
#: Columns that tell whether the words of a right verdict are true.
SAID = ("label", "spoof_type", "spoof_type_named", "explanation", "cues_claimed", "cues_measured")


@dataclass(frozen=True)
class Card:
    """One judged image, with what was said of it and what was measured on it."""

    id: str
    truth: str
    domain: str
    score: float
    accepted: bool
    right: bool
    named: str
    explanation: str
    claimed: tuple[str, ...]
    measured: tuple[str, ...]
    why: str = ""

    @property
    def alt(self) -> str:
        """What the picture is, in words."""
        return f"Test image, {self.truth}, domain {self.domain}, {'accepted' if self.accepted else 'rejected'}"

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Cues that the text claims and no specialist measured."""
        return tuple(cue for cue in self.claimed if cue not in self.measured)


def chosen(rows: pd.DataFrame, threshold: float, size: int) -> dict[str, list[Card]]:
    """At most `size` images by the groups of `gallery.GROUPS`: the worst mistakes, and typical right verdicts."""
    found = gallery.choose(rows, threshold, size)
    return {name: cards(rows, labels, threshold) for name, labels in found.items()}


def how_many(rows: pd.DataFrame, threshold: float) -> dict[str, int]:
    """Images of each group of `gallery.GROUPS` in all."""
    live, accepted = rows["label"] == "live", rows["score"] >= threshold
    groups = (~live & accepted, live & ~accepted, ~live & ~accepted, live & accepted)
    return {name: int(group.sum()) for name, group in zip(gallery.GROUPS, groups, strict=True)}


def wrong_words(rows: pd.DataFrame, threshold: float) -> tuple[list[Card], int]:
    """Right verdicts whose words are wrong: another medium than the true one, or a cue that nobody measured.

    Returns:
        The first of them, and how many there are.
    """
    told = rows[rows["explanation"].notna()]
    accepted = told["score"] >= threshold
    told = told[accepted == (told["label"] == "live")]
    found = []
    for label, identity, *said in zip(told.index, told["sample_id"], *(told[name] for name in SAID), strict=True):
        if why := _wrong(*said):
            found.append((not why.startswith("names"), identity, label, why))
    found.sort()
    shown = [replace(_card(told.loc[label], threshold), why=why) for *_, label, why in found[:SHOWN]]
    return shown, len(found)


def moved(rows: pd.DataFrame, frozen: float, chosen: float) -> list[Card]:
    """Images whose verdict another threshold changes, those first that it makes wrong."""
    low, high = sorted((frozen, chosen))
    there = rows[(rows["score"] >= low) & (rows["score"] < high)].sort_values("score", kind="stable")
    return sorted(cards(there, list(there.index), chosen), key=lambda card: card.right)[:SHOWN]


def jpeg(dataset: Dataset, sample: str) -> bytes:
    """A small JPEG of an image of a dataset.

    Raises:
        DataError: there is no such image, or its bytes are not what its id says.
        ImageRefused: it can't be decoded.
    """
    if not ID.fullmatch(sample):
        raise DataError("this is not the id of an image")
    places = dataset.manifest[dataset.manifest["sample_id"] == sample]
    if places.empty:
        raise DataError("the dataset has no such image")
    data = dataset.images.read(str(places.iloc[0]["shard"]), int(places.iloc[0]["row"]))
    if hashlib.sha256(data).hexdigest() != sample:
        raise DataError("the dataset holds another image in this place")
    return small(data, SIDE)


def small(data: bytes, side: int) -> bytes:
    """A JPEG of an image, at most `side` pixels high and wide. Raises ImageRefused."""
    from PIL import Image

    image = Image.fromarray(decode(data))
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def cards(rows: pd.DataFrame, labels: Sequence[int], threshold: float) -> list[Card]:
    """Cards of these rows, in this order."""
    return [_card(rows.loc[label], threshold) for label in labels]


def _card(row: pd.Series, threshold: float) -> Card:
    live, accepted = row["label"] == "live", bool(row["score"] >= threshold)
    sure = row["spoof_type_confidence"]
    named = str(row["spoof_type_named"]) if isinstance(row["spoof_type_named"], str) else ""
    return Card(
        id=str(row["sample_id"]),
        truth="bona fide" if live else str(row["pai_species"]),
        domain=str(row["domain"]),
        score=float(row["score"]),
        accepted=accepted,
        right=accepted == live,
        named=f"{named} ({sure:.2f})" if named and sure == sure and sure is not None else named,
        explanation=row["explanation"] if isinstance(row["explanation"], str) else "",
        claimed=_list(row["cues_claimed"]),
        measured=_list(row["cues_measured"]),
    )


@lru_cache(maxsize=10_000)
def _wrong(
    label: str, shown: str, named: str | None, explanation: str, claimed: str | None, measured: str | None
) -> str:
    """Why the words of a right verdict are wrong; empty where they are not."""
    if label == "spoof" and named != shown:
        return f"names {named}, shown was {shown}"
    others = sorted(kind for kind in media_named(explanation) if kind != named)
    if others:
        return f"names {' and '.join(others)} against its own answer, {named}"
    seen = _list(measured)
    unmeasured = [cue for cue in _list(claimed) if cue not in seen]
    if unmeasured and isinstance(measured, str):
        return f"claims {', '.join(unmeasured)}, which was not measured"
    return ""


def _list(text: object) -> tuple[str, ...]:
    if not isinstance(text, str):
        return ()
    found = json.loads(text)
    return tuple(str(one) for one in found) if isinstance(found, list) else ()
