"""What else could have judged the same images: scores of others, compared with the model's image by image.

A baseline is a score for each image, from a file or from `probe`. Its threshold is frozen on the same development data
by the same rule as the model's, so nobody chose it on tested images. Images without a score of a baseline are in none
of its figures; how many there are is told.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ifas.core.config import EvaluateConfig, ProtocolConfig
from ifas.core.errors import DataError
from ifas.core.measures import OF_BASELINES
from ifas.core.release_status import released
from ifas.evaluation.paired import Entry, differences, slices_of_test
from ifas.evaluation.threshold import freeze
from ifas.evaluation.tracks import voting, with_track_scores

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("sample_id", "score")
#: Figures that need no threshold.
RANKED = ("auc",)
#: Ids that an error names.
SHOWN = 3


def read_scores(path: Path, name: str) -> pd.Series:
    """The scores in a CSV file: sample_id -> p(bona fide).

    Args:
        name: of the baseline, for errors.

    Raises:
        DataError: it is no such table, an image has two scores, or a score is none from 0 to 1.
    """
    import pandas as pd

    fix = "it needs a header and the columns sample_id and score, the score of bona fide from 0 to 1"
    try:
        table = pd.read_csv(path, dtype=str, encoding="utf-8")
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"baseline {name}: {path} can't be read as CSV: {' '.join(str(error).split())}", fix) from error
    if lacking := [column for column in COLUMNS if column not in table]:
        has = ", ".join(map(str, table.columns[:8])) or "none"
        raise DataError(f"baseline {name}: {path} has no column {' and no column '.join(lacking)} (it has {has})", fix)
    if table.empty:
        raise DataError(f"baseline {name}: {path} has no rows", fix)
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes what is before the header's columns for an index
        raise DataError(f"baseline {name}: rows of {path} have more fields than its header", fix)
    twice = table.loc[table["sample_id"].duplicated(), "sample_id"]
    if len(twice):
        raise DataError(f"baseline {name}: {len(twice)} images have more than one score: {_some(twice)}", fix)
    scores = pd.to_numeric(table["score"], errors="coerce")
    wrong = ~(np.isfinite(scores) & scores.between(0, 1))
    if wrong.any():
        first = table["score"][wrong].iloc[0]
        what = f"{int(wrong.sum())} of {len(table)} scores are no number from 0 to 1 (first: {first})"
        raise DataError(f"baseline {name}: {what}, of images {_some(table['sample_id'][wrong])}", fix)
    return pd.Series(scores.to_numpy(dtype="float64"), index=table["sample_id"].to_numpy(dtype=object))


def check_ids(scores: pd.Series, name: str, known: pd.Series) -> None:
    """Raises DataError where a score is of an image that is not among the `known` ids."""
    strange = scores.index[~scores.index.isin(known)]
    if len(strange):
        raise DataError(
            f"baseline {name}: {len(strange)} of {len(scores)} sample_ids are of no image of the dataset: "
            f"{_some(strange)}",
            "the ids are those of the column sample_id of the dataset's manifest, the SHA-256 of each image's bytes",
        )


def coverage(rows: pd.DataFrame, scores: pd.Series, protocol: ProtocolConfig) -> dict[str, dict[str, int]]:
    """How many images the baseline's threshold and figures could rest on, and how many of them have no score.

    Args:
        rows: of the whole manifest, or of predictions.
    """
    usable = released(rows)
    sides = {"dev": protocol.source_domains, "test": protocol.source_domains + protocol.target_domains}
    found = {}
    for split, domains in sides.items():
        wanted = usable[(usable["split"] == split) & usable["domain"].isin(domains)]
        found[split] = {"n": len(wanted), "missing": int((~wanted["sample_id"].isin(scores.index)).sum())}
    return found


def measure(
    predicted: pd.DataFrame,
    scores: pd.Series,
    *,
    threshold: float,
    protocol: ProtocolConfig,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """A baseline's own figures, and by how much the model's differ from them on the same images.

    Args:
        predicted: the model's table, as `predict` returns it.
        scores: sample_id -> p(bona fide) of the baseline.
        threshold: the model's frozen one.

    Returns:
        `threshold`, `coverage`, and `slices`: slice -> each of `OF_BASELINES` -> `value`, the model's figure minus the
        baseline's, its `interval` or why there is none, `baseline`, `n`, `n_subjects`.
    """
    theirs = predicted.assign(score=predicted["sample_id"].map(scores).astype("float64"))
    if config.unit == "track":
        theirs = with_track_scores(theirs)
    try:
        frozen = freeze(theirs, protocol, config)
    except DataError as error:
        own, limit = {"value": None, "reason": error.what}, 0.5
    else:
        own, limit = frozen.entry(), frozen.value
    test = predicted[(predicted["split"] == "test")]
    test = voting(released(test), config)
    test = test.assign(theirs=theirs["score"].loc[test.index])
    test = test[test["theirs"].notna()]
    slices = {}
    for name, rows in slices_of_test(test, protocol, ["domain"]).items():
        found = differences(rows, threshold, limit, config)
        slices[name] = {
            one: _entry(found[one])
            if own["value"] is not None or one in RANKED
            else {"value": None, "reason": f"the baseline has no threshold: {own['reason']}", "n": len(rows)}
            for one in OF_BASELINES
        }
    return {"threshold": own, "coverage": coverage(predicted, scores, protocol), "slices": slices}


def _entry(paired: Entry) -> Entry:
    """The rival of a paired difference is the baseline here."""
    return {("baseline" if key == "champion" else key): value for key, value in paired.items()}


def _some(ids: Any) -> str:
    shown = [str(one)[:16] for one in list(ids)[:SHOWN]]
    return ", ".join(shown) + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
