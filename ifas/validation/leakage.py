"""Domain leakage: how well a linear probe predicts the domain within one label, and sampling weights that lower it.

If the domain can be read from an image, a detector may learn the domain instead of the attack (in arXiv 2403.08632,
networks recognise an image's dataset with 84.7 % accuracy; chance is 33.3 %). The weights are inverse propensities:
w = p(d | y) / p(d | x, y) with out-of-fold probabilities of the probe, scaled so that every domain has the same weight
within a label. They help only as far as domains overlap: if every image shows its domain, no sampling can hide it, and
the accuracy with weights stays high.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ifas.validation.section import Section, table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

FOLDS = 5
#: Largest weight, as a multiple of the mean one, so that no image is drawn too often.
MOST = 20.0
#: Components of the embedding that the probe gets; with more, it would separate a few hundred images by chance.
COMPONENTS = 24
#: The report notes a leak if its accuracy exceeds chance by this share of the possible excess.
NOTED = 0.5
#: Fewer subjects of a domain and label than folds can't be probed by subject.
LEAST_SUBJECTS = FOLDS


@dataclass(frozen=True, kw_only=True)
class Leak:
    """One label. Balanced accuracies of held-out subjects; `effective` is Kish's effective number of samples."""

    label: str
    images: int
    domains: int
    chance: float
    before: float
    after: float
    effective: float


def leakage(
    embedding_NF: npt.NDArray[np.float64], rows: pd.DataFrame, seed: int = 0
) -> tuple[list[Leak], npt.NDArray[np.float64]]:
    """Leakage of each label that can be probed, and the weight of each row (mean 1 within a label).

    Args:
        embedding_NF: one vector per row.
        rows: columns label, domain, dataset, subject_id; N rows.
    """
    import numpy as np

    weights = np.ones(len(rows))
    leaks = []
    for label in sorted(rows["label"].unique()):
        at = np.flatnonzero((rows["label"] == label).to_numpy())
        domain = rows["domain"].to_numpy()[at].astype(str)
        subject = (rows["dataset"].astype(str) + "/" + rows["subject_id"].astype(str)).to_numpy()[at]
        names, codes = np.unique(domain, return_inverse=True)
        if len(names) < 2:
            continue
        even = balanced(codes)
        if min(len(set(subject[codes == k])) for k in range(len(names))) < LEAST_SUBJECTS:
            weights[at] = even
            continue
        proba = out_of_fold(embedding_NF[at], codes, subject, even, seed)
        own = np.clip(proba[np.arange(len(at)), codes], 1 / (2 * MOST), 1)
        w = balanced(codes, np.minimum(1 / own, MOST / len(names)))
        weights[at] = w
        again = out_of_fold(embedding_NF[at], codes, subject, w, seed + 1)
        leaks.append(
            Leak(
                label=str(label),
                images=len(at),
                domains=len(names),
                chance=1 / len(names),
                before=balanced_accuracy(proba.argmax(1), codes, even),
                after=balanced_accuracy(again.argmax(1), codes, w),
                effective=float(w.sum() ** 2 / (w**2).sum()),
            )
        )
    return leaks, weights


def balanced(codes: npt.NDArray[np.int64], weights: npt.NDArray[np.float64] | None = None) -> npt.NDArray[np.float64]:
    """`weights` (or ones) scaled so that every class sums to the same, with mean 1 over all."""
    import numpy as np

    weights = np.ones(len(codes)) if weights is None else weights
    sums = np.bincount(codes, weights)
    scaled = weights / sums[codes]
    out: npt.NDArray[np.float64] = scaled * len(codes) / scaled.sum()
    return out


def balanced_accuracy(
    said: npt.NDArray[np.int64], codes: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]
) -> float:
    """Weighted balanced accuracy: mean over the classes of the weighted share of correct samples."""
    import numpy as np

    return float(np.mean(np.bincount(codes, weights * (said == codes)) / np.bincount(codes, weights)))


def out_of_fold(
    x_NF: npt.NDArray[np.float64],
    codes: npt.NDArray[np.int64],
    subjects: npt.NDArray[Any],
    weights: npt.NDArray[np.float64],
    seed: int,
) -> npt.NDArray[np.float64]:
    """Probabilities (N, classes) of a weighted logistic probe that did not see the row's subject."""
    import numpy as np
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes = int(codes.max()) + 1
    out = np.full((len(codes), classes), 1 / classes)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(x_NF, codes, subjects):
        if len(set(codes[train])) < 2:
            continue
        size = min(COMPONENTS, x_NF.shape[1], len(train) - 1)
        probe = make_pipeline(
            StandardScaler(), PCA(size, random_state=0), StandardScaler(), LogisticRegression(C=0.1, max_iter=300)
        )
        probe.fit(x_NF[train], codes[train], logisticregression__sample_weight=weights[train])
        out[np.ix_(test, probe[-1].classes_)] = probe.predict_proba(x_NF[test])
    return out


def section(leaks: list[Leak], embedding: str, images: int) -> Section:
    """The report of these leaks; `embedding` says in words what the probe saw."""
    flags = [
        f"{one.label}: the domain is read from the image with {one.before:.0%} balanced accuracy (chance "
        f"{one.chance:.0%}); {one.after:.0%} with the sampling weights"
        for one in leaks
        if one.before - one.chance > NOTED * (1 - one.chance)
    ]
    return Section(
        id="domain-leakage",
        title="Can the domain be read from the image?",
        about=f"Balanced accuracy with which a linear probe names the domain of images of one label, on subjects it "
        f"did not see, in {embedding}; {images} training images. With weights: the probe is fitted and judged with "
        "the weights of sampling_weights.parquet, which training uses where train.domain_balance is set. Where "
        "images of two domains have nothing in common, weights change little.",
        head=("label", "images", "domains", "chance", "accuracy", "with weights", "effective images"),
        rows=table((o.label, o.images, o.domains, o.chance, o.before, o.after, round(o.effective)) for o in leaks),
        flags=tuple(flags),
        facts={"embedding": embedding, "images": images, "labels": {o.label: _numbers(o) for o in leaks}},
    )


def _numbers(one: Leak) -> dict[str, float]:
    return {name: round(float(getattr(one, name)), 4) for name in ("images", "chance", "before", "after", "effective")}
