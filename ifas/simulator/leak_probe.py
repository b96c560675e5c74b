"""Does the world leak? A linear probe that sees trivial cues only, each PAI species against bona fide.

The cues are those by which a data set gives its classes away without anyone looking at a face: picture size, mean
colour, contrast, black and white level, high-frequency energy, what lies along the frame's border, JPEG size, the
face box.
Logistic regression on all of them together, standardised, L2 with C = 0.1, scored on subjects it was not fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ifas.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ifas.simulator.arrays import F32, U8

BAR = 0.75  # largest AUC at which the world counts as honest
FOLDS = 5
RESAMPLES = 200
STRIP = 10  # width of the border strips, pixels
#: Cue -> its numbers.
CUES: dict[str, tuple[str, ...]] = {
    "size": ("width", "height"),
    "colour": ("mean", "red", "blue"),
    "contrast": ("spread",),
    "levels": ("black", "white"),
    "high_frequency": ("laplacian", "fine"),
    "border": ("border_mean", "border_spread", "border_detail"),
    "jpeg": ("bytes",),
    "face_box": ("x", "y", "w", "h"),
}
COLUMNS = tuple(name for names in CUES.values() for name in names)


@dataclass(frozen=True)
class Probe:
    """One species against bona fide. `auc` of unseen subjects, with its 95 % interval over subjects."""

    species: str
    cues: str
    auc: float
    low: float
    high: float
    attacks: int
    bona_fide: int


def cues(jpeg: bytes, box: Sequence[float]) -> F32:
    """The numbers of COLUMNS of one picture; `box` is the face's x, y, w, h in pixels."""
    import cv2

    image: U8 | None = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError("the leak probe met bytes that are not a picture", "give it the pictures of a demo data set")
    pixels = image[..., ::-1].astype(np.float32)
    grey = pixels.mean(2)
    mean = pixels.mean((0, 1))
    detail = np.abs(cv2.Laplacian(grey, cv2.CV_32F))
    frame = np.ones(grey.shape, bool)
    frame[STRIP:-STRIP, STRIP:-STRIP] = False
    values = (
        grey.shape[1],
        grey.shape[0],
        grey.mean(),
        mean[0] - mean[1],
        mean[2] - mean[1],
        grey.std(),
        np.percentile(grey, 1),
        np.percentile(grey, 99),
        np.log(detail.mean() + 0.1),
        np.log((grey - cv2.GaussianBlur(grey, (0, 0), 2.0)).std() + 0.1),
        grey[frame].mean(),
        grey[frame].std(),
        np.log(detail[frame].mean() + 0.1),
        np.log(len(jpeg)),
        *box,
    )
    return np.array(values, np.float32)


def _auc(scores: F32, attack: F32) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(attack, scores))


def _interval(scores: F32, attack: F32, subjects: Sequence[str]) -> tuple[float, float]:
    """Percentile bootstrap that draws subjects, as pictures of one subject are alike."""
    rng = np.random.default_rng(0)
    names = np.array(subjects)
    rows = [np.flatnonzero(names == s) for s in sorted(set(subjects))]
    found = []
    for _ in range(RESAMPLES):
        at = np.concatenate([rows[k] for k in rng.integers(len(rows), size=len(rows))])
        if 0 < attack[at].sum() < len(at):
            found.append(_auc(scores[at], attack[at]))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def probe(values: F32, attack: F32, subjects: Sequence[str]) -> F32:
    """Scores (n,) of the linear probe, every picture scored by a probe that was not fitted on its subject.

    Args:
        values: (n, k) cues. attack: (n,) 1 for attacks. subjects: (n,) whose pictures they are.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=500))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    scores = cross_val_predict(model, values, attack, groups=subjects, cv=folds, method="decision_function")
    return np.asarray(scores, dtype=np.float32)


def leaks(values: F32, species: Sequence[str], subjects: Sequence[str], *, single: bool = False) -> list[Probe]:
    """The probe's AUC per species on all cues together, and with `single` on each cue alone.

    Args:
        values: (n, len(COLUMNS)) from `cues`. species: "live" or the PAI species of each picture.

    Raises:
        DataError: a species or bona fide has fewer pictures than folds.
    """
    kinds, who = np.array(species), np.array(subjects)
    groups: dict[str, list[int]] = {"all": list(range(len(COLUMNS)))}
    if single:
        groups |= {cue: [COLUMNS.index(n) for n in names] for cue, names in CUES.items()}
    out = []
    for one in sorted(set(species) - {"live"}):
        rows = np.flatnonzero((kinds == "live") | (kinds == one))
        attack = (kinds[rows] == one).astype(np.float32)
        if min(attack.sum(), (1 - attack).sum()) < FOLDS:
            raise DataError(f"too few pictures of bona fide or {one} for a probe", f"give at least {FOLDS} of each")
        subject = [str(s) for s in who[rows]]
        for name, columns in groups.items():
            scores = probe(values[rows][:, columns], attack, subject)
            low, high = _interval(scores, attack, subject)
            out.append(Probe(one, name, _auc(scores, attack), low, high, int(attack.sum()), int((1 - attack).sum())))
    return out
