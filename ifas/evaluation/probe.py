"""A linear probe: logistic regression on what the frozen vision tower says of an image.

It shows what can be told from the tower alone, before connector and language model are trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ifas.core.config import ProtocolConfig
from ifas.core.errors import DataError
from ifas.core.manifest import ImageSource
from ifas.core.release_status import released
from ifas.evaluation.metrics import Bools, auc
from ifas.evaluation.predict import Pooling, pooled
from ifas.evaluation.threshold import development

if TYPE_CHECKING:
    import pandas as pd

#: Values of C that are tried; the smaller, the stronger the regularisation.
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)


@dataclass(frozen=True)
class Probe:
    """A fitted regression, the C that was chosen, and its AUC on development data."""

    regression: Any
    c: float
    dev_auc: float

    def scores(self, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """p(bona fide), (N,); NaN where a row of features is."""
        found = np.full(len(features_NF), np.nan)
        there = np.isfinite(features_NF).all(axis=1)
        if there.any():
            found[there] = self.regression.predict_proba(features_NF[there])[:, 1]
        return found


def fit(
    train_NF: npt.NDArray[np.float32],
    live_N: Bools,
    dev_MF: npt.NDArray[np.float32],
    dev_live_M: Bools,
    strengths: Sequence[float] = STRENGTHS,
) -> Probe:
    """The regression whose C ranks the development images best; of equals, the strongest regularisation.

    Raises:
        DataError: a class is missing on either side.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if live_N.all() or not live_N.any():
        raise DataError("the probe has no bona fide or no attack to learn from", "look at the training rows")
    best: Probe | None = None
    for c in strengths:
        regression = LogisticRegression(C=c, max_iter=5000, class_weight="balanced")
        made = make_pipeline(StandardScaler(), regression).fit(train_NF, live_N)
        reached = auc(made.predict_proba(dev_MF)[:, 1], dev_live_M)
        if best is None or reached > best.dev_auc:
            best = Probe(made, c, reached)
    assert best is not None
    return best


def scores_of_probe(
    judge: Pooling,
    predicted: pd.DataFrame,
    manifest: pd.DataFrame,
    images: ImageSource,
    protocol: ProtocolConfig,
    batch: int,
) -> tuple[pd.Series, dict[str, Any]]:
    """A probe fitted on released training rows of the source domains: its scores of dev and test rows, by sample_id.

    Args:
        predicted: the model's table; its released rows are scored.
        manifest: of the same dataset, with the training rows.

    Raises:
        DataError: training or development data lack a class, or no image can be judged.
    """
    import pandas as pd

    usable = released(manifest)
    places = manifest.drop_duplicates("sample_id").set_index("sample_id")
    train = usable[(usable["split"] == "train") & usable["domain"].isin(protocol.source_domains)]
    judged = released(predicted).drop_duplicates("sample_id")
    rows = pd.concat([train, places.loc[judged["sample_id"]].reset_index()], ignore_index=True)
    features_NF = pooled(judge, rows, images, batch)
    there = np.isfinite(features_NF).all(axis=1)
    live = (rows["label"] == "live").to_numpy(dtype=bool)
    fitting = there & (np.arange(len(rows)) < len(train))
    dev = development(rows.assign(known=np.where(there, 1.0, np.nan)), protocol, "known").index
    made = fit(features_NF[fitting], live[fitting], features_NF[dev], live[dev])
    scores = pd.Series(made.scores(features_NF[len(train) :]), index=judged["sample_id"].to_numpy(dtype=object))
    facts = {
        "training_rows": int(fitting.sum()),
        "features": features_NF.shape[1],
        "c": made.c,
        "dev_auc": made.dev_auc,
    }
    return scores.dropna(), facts
