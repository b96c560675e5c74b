"""The images whose answers are mined, and those on which the stage is measured: disjoint, and never test data."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ifas.core.claims import Known, sure_of
from ifas.core.errors import DataError, ImageRefused
from ifas.core.imaging import decode
from ifas.core.manifest import ImageSource
from ifas.core.release_status import RELEASED
from ifas.faces.boxes import Box, box_of
from ifas.faces.face import Face

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("sample_id", "shard", "row", "face_box", "subject_id", "spoof_type", "pai_species", "caption", "evidence")


@dataclass(frozen=True)
class Example:
    """An image, what is known of it, and its chosen answer's interpretation (`caption`)."""

    known: Known
    shard: str
    row: int
    box: Box | None
    subject: str
    caption: str


def minable(rows: pd.DataFrame, held_out: Collection[str], most: int) -> list[Example]:
    """At most `most` training images, evenly over the spoof types.

    Args:
        rows: captioned manifest rows.
        held_out: sample ids (hashes of the bytes) of every image outside of the train split.
        most: of them.

    Raises:
        DataError: a row is not of the train split, not released, or its image is in another split as well.
    """
    return _chosen(_checked(rows, "train"), held_out, most)


def measurable(rows: pd.DataFrame, trained: Collection[str], most: int) -> list[Example]:
    """At most `most` development images, evenly over the spoof types, on which before and after are compared.

    Raises:
        DataError: a row is not of the dev split, not released, or its image was trained on.
    """
    return _chosen(_checked(rows, "dev"), trained, most)


def faces(examples: Sequence[Example], images: ImageSource) -> Iterator[Face]:
    """Decoded images with their faces, one after the other.

    Raises:
        DataError: one can't be decoded.
    """
    for example in examples:
        try:
            yield Face.of(decode(images.read(example.shard, example.row)), example.box)
        except ImageRefused as error:
            raise DataError(
                f"sample {example.known.sample_id} ({example.shard}, row {example.row}): {error.what}",
                "run `ifas step ingest` again: it lists and drops pictures that can't be decoded",
            ) from error


def _checked(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    wrong = rows[(rows["split"] != split) | (rows["status"] != RELEASED)]
    if len(wrong):
        first = wrong.iloc[0]
        raise DataError(
            f"{len(wrong)} rows are not released {split} rows, the first is {first['sample_id']} "
            f"({first['split']}, {first['status']})",
            "alignment mines released train rows and is measured on released dev rows of the source domains",
        )
    return rows


def _chosen(rows: pd.DataFrame, forbidden: Collection[str], most: int) -> list[Example]:
    both = sorted(set(rows["sample_id"].astype(str)) & set(forbidden))
    if both:
        raise DataError(
            f"{len(both)} pictures are on both sides of the split, the first is {both[0]}",
            "split the dataset again, by subject; validation names pictures that occur twice",
        )
    # A sample id is a hash, so its order is as good as random, and the same everywhere.
    ordered = rows.drop_duplicates("sample_id").sort_values("sample_id")
    turn = ordered.groupby("spoof_type").cumcount()
    ordered = ordered.assign(turn=turn).sort_values(["turn", "spoof_type"]).head(most).sort_values("sample_id")
    return [
        Example(
            known=Known(str(r.sample_id), str(r.spoof_type), str(r.pai_species), sure_of(str(r.evidence))),
            shard=str(r.shard),
            row=int(r.row),
            box=box_of(r.face_box),
            subject=str(r.subject_id),
            caption=str(r.caption),
        )
        for r in ordered[list(COLUMNS)].itertuples(index=False)
    ]
