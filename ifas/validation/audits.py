"""All audits, in the order of the report, and the sampling weights: what validation measures beyond the rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ifas.core.config import VisionConfig
from ifas.core.errors import IfasError
from ifas.core.imaging import decode
from ifas.core.manifest import CAPTION_COLUMNS, COLUMNS, ImageSource
from ifas.core.release_status import released
from ifas.validation import embedding, faceless, leakage, table_audits, triggers
from ifas.validation.derived import trained_on
from ifas.validation.drift import drift
from ifas.validation.exposure import exposure
from ifas.validation.section import Section

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

#: Largest number of images that are opened, so that the cost of validation does not grow with the data.
MOST_PICTURES = 1500


def audit_columns(
    rows: pd.DataFrame, source_domains: Sequence[str], dataset: Mapping[str, Any], before: pd.DataFrame | None
) -> list[Section]:
    """Audits that open no image; none if columns are missing, which the rules report."""
    if rows.empty or not {c.name for c in COLUMNS + CAPTION_COLUMNS} <= set(rows):
        return []
    found = [exposure(rows, source_domains), table_audits.release_status(rows), table_audits.label_audit(rows)]
    found.append(faceless.section(rows))
    if (audit := table_audits.selection_audit(dataset)) is not None:
        found.append(audit)
    if before is not None:
        found.append(drift(rows, before))
    return found


def audit_pictures(
    rows: pd.DataFrame, source_domains: Sequence[str], images: ImageSource, vision: VisionConfig
) -> tuple[list[Section], pd.DataFrame]:
    """Domain leakage and triggers of released training images, and a weight per row: sample_id, weight.

    At most MOST_PICTURES images are opened, taken evenly from the rows in order. The weight of a row that was not
    opened depends only on the number of images of its domain. An image that can't be read is left out.
    """
    import numpy as np
    import pandas as pd

    train = trained_on(rows, source_domains)
    train = released(train[train["split"] == "train"]).reset_index(drop=True)
    weights = np.ones(len(train))
    for label in train["label"].unique():
        at = np.flatnonzero((train["label"] == label).to_numpy())
        weights[at] = leakage.balanced(pd.factorize(train["domain"].iloc[at])[0])
    chosen = train.iloc[np.unique(np.linspace(0, len(train) - 1, min(len(train), MOST_PICTURES)).astype(int))]
    read = list(_decoded(chosen, images))
    if len(read) < leakage.FOLDS * 2:
        return [], pd.DataFrame({"sample_id": train["sample_id"], "weight": weights})
    at = np.array([i for i, _ in read])
    seen = train.iloc[at].reset_index(drop=True)
    vectors, words = embedding.embed((picture for _, picture in read), vision)
    leaks, mine = leakage.leakage(vectors, seen)
    mean = pd.Series(weights[at]).groupby([seen["label"], seen["domain"]]).transform("mean").to_numpy()
    share = pd.Series(mine).groupby([seen["label"], seen["domain"]]).transform("mean").to_numpy()
    weights[at] = mine / share * mean
    grey = [(picture @ [0.299, 0.587, 0.114]).astype(np.uint8) for _, picture in read]
    people = list(seen["dataset"].astype(str) + "/" + seen["subject_id"].astype(str))
    planted = triggers.find(grey, list(seen["label"]), people)
    sections = [
        leakage.section(leaks, words, len(read)),
        triggers.section(planted, list(seen["sample_id"]), len(read)),
    ]
    return sections, pd.DataFrame({"sample_id": train["sample_id"], "weight": weights})


def _decoded(rows: pd.DataFrame, images: ImageSource) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    for i, shard, row in zip(rows.index, rows["shard"], rows["row"], strict=True):
        try:
            yield int(i), decode(images.read(str(shard), int(row)))
        except IfasError:
            continue
