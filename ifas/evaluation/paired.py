"""A candidate against the champion on the same images: differences, candidate minus champion, with 95 % intervals.

Both models judge the very same people and images, so what is hard for both cancels out. The champion keeps its own
calibration and threshold, as it is served.

- Rates: images that one model gets wrong and the other right, counted by subject. Their two shares have the intervals
  of `clustered`, and those are joined as Zou and Donner (2008) join intervals of two rates. So no difference seen in
  few people is not taken for no difference.
- APCER and APNRR of the worst PAI species: the candidate's worst is at most as much above the champion's as the
  species with the largest increase is. So the upper end is the largest of all species' upper ends.
- Figures of the ranking: whole subjects are drawn, the same for both models, and the interval is Student's t.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ifas.core.calibration import Calibration
from ifas.core.config import EvaluateConfig, ProtocolConfig
from ifas.core.measures import SLICE_KINDS, unseen
from ifas.evaluation.clustered import rate_interval
from ifas.evaluation.intervals import CHUNK, widening
from ifas.evaluation.metrics import BOOTSTRAPPED, Bools
from ifas.evaluation.rates import people
from ifas.evaluation.slices import split_by
from ifas.evaluation.tracks import voting, with_track_scores

if TYPE_CHECKING:
    import pandas as pd

Entry = dict[str, Any]
#: Slices that the champion was not judged on: batches that are not released, images as they were handled, tracks beside
#: images.
NOT_PAIRED = ("batch", "handling", "track")


def against(
    predicted: pd.DataFrame,
    rescored: pd.DataFrame,
    *,
    threshold: float,
    champion: Mapping[str, Any],
    protocol: ProtocolConfig,
    config: EvaluateConfig,
) -> dict[str, dict[str, Entry]]:
    """Slice -> figure -> its difference: `value`, `interval` or why there is none, `champion`, `n`, `n_subjects`.

    Args:
        predicted: the candidate's table, as `predict` returns it.
        rescored: the champion's raw scores of its released test rows, as `rescore` returns them.
        threshold: the candidate's frozen one.
        champion: metrics of the champion's own evaluation: its threshold, and its calibration if it has one.
    """
    own = champion.get("calibration")
    raw = rescored["raw_score"].to_numpy(dtype="float64")
    fitted = Calibration(temperature=own["temperature"], bias=own["bias"]) if own else None
    theirs = rescored.assign(score=fitted.apply(raw) if fitted else raw)
    if config.unit == "track":
        theirs = with_track_scores(theirs)
    test = voting(predicted.loc[rescored.index], config)
    test = test.assign(theirs=theirs["score"].loc[test.index])
    limits = threshold, float(champion["threshold"]["value"])
    kinds = [kind for kind in SLICE_KINDS if kind not in NOT_PAIRED]
    return {name: differences(rows, *limits, config) for name, rows in slices_of_test(test, protocol, kinds).items()}


def slices_of_test(test: pd.DataFrame, protocol: ProtocolConfig, kinds: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Released test rows of the fixed slices, and of each slice of these kinds."""
    sides = {"source_test": protocol.source_domains, "target": protocol.target_domains}
    slices = {name: test[test["domain"].isin(domains)] for name, domains in sides.items()}
    judged = test[test["domain"].isin(protocol.source_domains + protocol.target_domains)]
    for kind in kinds:
        slices |= split_by(test if kind == "domain" else judged, kind)
    return slices


def differences(rows: pd.DataFrame, threshold: float, theirs: float, config: EvaluateConfig) -> dict[str, Entry]:
    """The differences on one slice.

    Args:
        rows: with `score` of the candidate and `theirs`, the champion's; null where either gave no answer.
        threshold, theirs: of the candidate and of the champion.
    """
    mine, other = rows["score"].isna(), rows["theirs"].isna()
    live, attack = _classes(rows)
    found = {"bpnrr": _rate(mine[live], other[live], people(rows[live]))}
    found |= _worst("apnrr", rows[attack], mine, other)
    both = rows[~mine & ~other]
    live, attack = _classes(both)
    mine, other = both["score"] >= threshold, both["theirs"] >= theirs
    found["bpcer"] = _rate(~mine[live], ~other[live], people(both[live]))
    found["apcer_pooled"] = _rate(mine[attack], other[attack], people(both[attack]))
    found |= _worst("apcer", both[attack], mine, other)
    return found | _ranking(both, threshold, theirs, config)


def _classes(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    live = rows["label"] == "live"
    return live, ~live


def _rate(ours: pd.Series, theirs: pd.Series, of: npt.NDArray[np.object_]) -> Entry:
    """Of images that are wrong (true) for the candidate and for the champion."""
    if ours.empty:
        return {"value": None, "reason": "no such image in this slice", "n": 0}
    mine, other = ours.to_numpy(dtype=bool), theirs.to_numpy(dtype=bool)
    names, person_N = np.unique(np.asarray(of, dtype=str), return_inverse=True)
    counts_S = np.bincount(person_N)
    worse, low_worse, high_worse = _share(mine & ~other, person_N, counts_S)
    better, low_better, high_better = _share(other & ~mine, person_N, counts_S)
    value = worse - better
    low = value - np.hypot(worse - low_worse, high_better - better)
    high = value + np.hypot(high_worse - worse, better - low_better)
    return {
        "value": value,
        "interval": [max(-1.0, float(low)), min(1.0, float(high))],
        "champion": float(other.mean()),
        "n": len(mine),
        "n_subjects": len(names),
    }


def _share(which: Bools, person_N: Any, counts_S: Any) -> tuple[float, float, float]:
    """A share of images with the ends of its interval."""
    errors_S = np.bincount(person_N[which], minlength=len(counts_S))
    low, high = rate_interval(errors_S, counts_S)
    # Never closer than where none was seen: else one more difference would make the differences look smaller.
    return float(which.mean()), low, max(high, unseen(len(counts_S)))


def _worst(name: str, attacks: pd.DataFrame, ours: pd.Series, theirs: pd.Series) -> dict[str, Entry]:
    """The differences of each PAI species, and that of the worst.

    Args:
        ours, theirs: of these rows and of others.
    """
    if attacks.empty:
        return {f"{name}_max": {"value": None, "reason": "no attack image in this slice", "n": 0}}
    each = {
        str(species): _rate(ours[group.index], theirs[group.index], people(group))
        for species, group in attacks.groupby("pai_species", sort=True)
    }
    champion_of = {species: float(one["champion"]) for species, one in each.items()}
    own_of = {species: float(one["value"]) + champion_of[species] for species, one in each.items()}
    worst, hardest = max(own_of, key=lambda s: own_of[s]), max(champion_of, key=lambda s: champion_of[s])
    value = own_of[worst] - champion_of[hardest]
    low, high = each[hardest]["interval"][0], max(one["interval"][1] for one in each.values())
    return {
        name: each,
        f"{name}_max": {
            "value": value,
            "interval": [min(value, low), max(value, high)],
            "champion": champion_of[hardest],
            "species": worst,
            "n": len(attacks),
            "n_subjects": len(set(people(attacks))),
        },
    }


def _ranking(rows: pd.DataFrame, threshold: float, theirs: float, config: EvaluateConfig) -> dict[str, Entry]:
    """Of AUC, EER, HTER and the others that need bona fide and attacks."""
    from ifas.evaluation.resampling import Sorted

    live = (rows["label"] == "live").to_numpy(dtype=bool)
    if live.all() or not live.any():
        return {
            name: {"value": None, "reason": "needs bona fide and attack images", "n": len(rows)}
            for name in BOOTSTRAPPED
        }
    names, person_N = np.unique(np.asarray(people(rows), dtype=str), return_inverse=True)
    species = rows["pai_species"].to_numpy(dtype=object)
    models = [
        Sorted.of(rows[column].to_numpy(dtype="float64"), live, species, person_N, threshold=limit)
        for column, limit in (("score", threshold), ("theirs", theirs))
    ]
    once = np.ones((1, len(names)), dtype=np.int64)
    ours_F, theirs_F = (model.figures(once, threads=1)[0] for model in models)
    fewest = min(len(np.unique(person_N[live])), len(np.unique(person_N[~live])))
    half_F, why = _half(models, len(names), fewest, config)
    found: dict[str, Entry] = {}
    for index, name in enumerate(BOOTSTRAPPED):
        value = float(ours_F[index] - theirs_F[index])
        entry: Entry = {"value": value, "champion": float(theirs_F[index]), "n": len(rows), "n_subjects": len(names)}
        if half_F is None:
            entry |= {"interval": None, "no_interval": why}
        else:
            half = float(half_F[index])
            entry["interval"] = [max(-1.0, value - half), min(1.0, value + half)]
        found[name] = entry
    return found


def _half(models: list[Any], subjects: int, fewest: int, config: EvaluateConfig) -> tuple[Any, str]:
    """Half the width of each difference's interval (F,), or None and why."""
    if config.bootstrap < 1:
        return None, "the bootstrap is switched off (evaluate.bootstrap)"
    if fewest < 2:
        return None, "bona fide or attacks of one subject: a bootstrap over subjects needs two"
    rng = np.random.default_rng(config.seed)
    chunk = max(1, CHUNK // subjects)
    drawn = []
    for start in range(0, config.bootstrap, chunk):
        size = min(chunk, config.bootstrap - start)
        times_BS = rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=size)
        ours_BF, theirs_BF = (model.figures(times_BS) for model in models)
        drawn.append(ours_BF - theirs_BF)
    drawn_BF = np.concatenate(drawn)
    drawn_BF = drawn_BF[~np.isnan(drawn_BF[:, 0])]
    if len(drawn_BF) < config.bootstrap / 2:
        return None, "most resamples lack bona fide or attacks: too few subjects"
    # Where no resample differs, so many people may still hide one who would: see `clustered`.
    spread_F = drawn_BF.std(axis=0)
    return np.where(spread_F > 0, widening(fewest) * spread_F, unseen(fewest)), ""
