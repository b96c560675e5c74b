"""One score for all frames of a face track, so that a clip counts once and not once for each frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.core.config import EvaluateConfig

if TYPE_CHECKING:
    import pandas as pd

#: Frames of one track share these. An image that is no frame is a track of its own. `status` is among them so that
#: frames that nobody released yet never change the score of released ones.
TRACK = ["dataset", "media_id", "track_id", "status"]


def with_track_scores(predictions: pd.DataFrame, column: str = "score") -> pd.DataFrame:
    """The same rows; `column` becomes its mean over the readable frames of the row's track; null where there are none.

    The public code of the MCIO protocols averages the probabilities of a video in the same way.
    """
    keys = _keys(predictions)
    return predictions.assign(**{column: predictions[column].groupby(keys).transform("mean")})


def votes(predictions: pd.DataFrame, config: EvaluateConfig) -> pd.Series:
    """How much each of these rows counts, so that a track counts once under `config.unit`."""
    if config.unit == "track":
        keys = _keys(predictions)
        return 1 / keys.groupby(keys).transform("size")
    return predictions["label"].map(lambda _: 1.0)


def voting(predictions: pd.DataFrame, config: EvaluateConfig) -> pd.DataFrame:
    """The rows that count once each under `config.unit`."""
    return one_per_track(predictions) if config.unit == "track" else predictions


def one_per_track(predictions: pd.DataFrame) -> pd.DataFrame:
    """The first readable row of each track, or its first where none is readable, in the order of the rows."""
    order = predictions.assign(_key=_keys(predictions), _mute=predictions["score"].isna())
    kept = order.sort_values("_mute", kind="stable").drop_duplicates("_key").index
    return predictions.loc[predictions.index.isin(kept)]


def several(predictions: pd.DataFrame) -> bool:
    """Whether any track has more than one image."""
    return bool(predictions.duplicated(TRACK).any())


def _keys(predictions: pd.DataFrame) -> pd.Series:
    """A text for each row that its track shares."""
    import json

    return predictions[TRACK].apply(
        lambda row: json.dumps([None if v != v else v for v in row]), axis=1, result_type="reduce"
    )
