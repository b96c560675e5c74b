"""Rates as they stand in metrics.json: a share of images, counted by person, with an interval that respects people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ifas.evaluation.clustered import rate_interval
from ifas.evaluation.metrics import Bools, Ints

if TYPE_CHECKING:
    import pandas as pd

#: A figure of explanations in a slice without such ones.
NO_EXPLANATION: Mapping[str, Any] = {"value": None, "reason": "no such explanation in this slice", "n": 0}
#: Column of `with_people`.
PERSON = "person"
#: What metrics.json says of the method.
METHOD = (
    "pictures of a person counted as worth n / (1 + (m - 1) r) independent ones, averaged over the correlations r that "
    "fit the errors of the subjects (Jeffreys and beta-binomial); without an error, each subject counts once "
    "(Clopper-Pearson)"
)


def people(rows: pd.DataFrame) -> npt.NDArray[np.object_]:
    """A text for each row that its person's rows share: column `PERSON` where `with_people` made it.

    An id is unique within its dataset only. Rows without an id may all be of one person, so a dataset's count as one:
    that claims least.
    """
    if PERSON in rows:
        return np.asarray(rows[PERSON], dtype=object)
    ids = rows["subject_id"].astype(object).where(rows["subject_id"].notna(), "").astype(str)
    return np.asarray(rows["dataset"].astype(str) + "/" + ids, dtype=object)


def with_people(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows with column `PERSON`, so that it is made once for all figures of a slice."""
    return rows.assign(**{PERSON: people(rows)})


@dataclass(frozen=True, eq=False)
class Rate:
    """Wrong ones and all of them, by person; persons without any are left out."""

    errors_S: Ints
    counts_S: Ints

    @classmethod
    def of(cls, wrong_N: npt.ArrayLike, people_N: npt.ArrayLike, counts_N: npt.ArrayLike | None = None) -> Rate:
        """Counts by person.

        Args:
            wrong_N: whether each image is wrong, or how many wrong ones it has.
            people_N: whose it is.
            counts_N: how many each image has; one when left out.
        """
        import pandas as pd

        wrong = np.asarray(wrong_N).astype(np.int64)
        counts = np.ones_like(wrong) if counts_N is None else np.asarray(counts_N, dtype=np.int64)
        person_N, names = pd.factorize(np.asarray(people_N, dtype=object))
        errors_S, counts_S = np.zeros(len(names), dtype=np.int64), np.zeros(len(names), dtype=np.int64)
        np.add.at(errors_S, person_N, wrong)
        np.add.at(counts_S, person_N, counts)
        # In an order that does not depend on that of the rows, so that no sum does to the last bit.
        order = np.lexsort((errors_S, counts_S))
        order = order[counts_S[order] > 0]
        return cls(errors_S[order], counts_S[order])

    @property
    def errors(self) -> int:
        """Wrong ones."""
        return int(self.errors_S.sum())

    @property
    def n(self) -> int:
        """All of them."""
        return int(self.counts_S.sum())

    @property
    def value(self) -> float:
        """The share; NaN where nothing was counted."""
        return self.errors / self.n if self.n else float("nan")

    @property
    def n_subjects(self) -> int:
        """People among whom it was counted."""
        return len(self.counts_S)

    @property
    def badness(self) -> tuple[float, int, int]:
        """Sorts rates by value, and the same value by how little it is known: of fewer people, then images."""
        return self.value, -self.n_subjects, -self.n

    def entry(self) -> dict[str, Any]:
        """Value, 95 % interval, errors, n and the number of people."""
        if self.n == 0:
            return {"value": None, "reason": "no such images in this slice", "n": 0}
        interval = rate_interval(self.errors_S, self.counts_S)
        return {
            "value": self.value,
            "interval": list(interval),
            "errors": self.errors,
            "n": self.n,
            "n_subjects": self.n_subjects,
        }

    def entry_of_successes(self) -> dict[str, Any]:
        """Like `entry`, for a share that counts successes: they are called `hits`."""
        if self.n == 0:
            return {**NO_EXPLANATION}
        return {("hits" if key == "errors" else key): value for key, value in self.entry().items()}


def apcer(rows: pd.DataFrame, threshold: float) -> dict[str, Rate]:
    """Attack presentation classification error rate of each PAI species: attacks of it accepted as bona fide.

    Args:
        rows: with a score each.
    """
    attacks = rows[rows["label"] == "spoof"]
    return {
        str(species): Rate.of(_accepted(group, threshold), people(group))
        for species, group in attacks.groupby("pai_species", sort=True)
    }


def apcer_pooled(rows: pd.DataFrame, threshold: float) -> Rate:
    """Attacks of any species accepted as bona fide. Rows as for `apcer`."""
    attacks = rows[rows["label"] == "spoof"]
    return Rate.of(_accepted(attacks, threshold), people(attacks))


def bpcer(rows: pd.DataFrame, threshold: float) -> Rate:
    """Bona fide presentation classification error rate: bona fide rejected. Rows as for `apcer`."""
    live = rows[rows["label"] == "live"]
    return Rate.of(~_accepted(live, threshold), people(live))


def _accepted(rows: pd.DataFrame, threshold: float) -> Bools:
    return np.asarray(rows["score"].to_numpy(dtype="float64") >= threshold)
