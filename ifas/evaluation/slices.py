"""All figures of one slice of the test rows; a figure that can't be measured is null, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ifas.core.config import EvaluateConfig
from ifas.core.taxonomy import ATTACKS
from ifas.evaluation import explanations, metrics, modes, robustness
from ifas.evaluation.intervals import subject_bootstrap
from ifas.evaluation.metrics import APCER_LIMITS, FPR_LIMIT, Bools, Floats, Sweep
from ifas.evaluation.rates import NO_EXPLANATION, Rate, apcer, apcer_pooled, bpcer, people, with_people

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "unknown"

Statistic = Callable[[Sweep, Bools], Floats]


def split_by(rows: pd.DataFrame, kind: str) -> dict[str, pd.DataFrame]:
    """Rows by the values of one column, `kind:value` -> rows. Bona fide belong to every spoof type's slice."""
    if kind == "spoof_type":
        live = rows["label"] == "live"
        return {f"{kind}:{t}": rows[live | (rows[kind] == t)] for t in ATTACKS if (rows[kind] == t).any()}
    # Rows that came by no batch are in no batch slice; rows of unknown device, say, form a slice of their own.
    values = rows[kind].dropna() if kind == "batch" else rows[kind].fillna(UNKNOWN)
    rows = rows.loc[values.index]
    return {f"{kind}:{value}": rows[values == value] for value in sorted(set(values))}


def measure_slice(rows: pd.DataFrame, threshold: float, config: EvaluateConfig, about: str) -> dict[str, Any]:
    """Figures of the slice, by the names in `core.measures.MEASURES`, and APCER of each PAI species under `apcer`.

    Args:
        rows: predictions, with a score and a verdict where the image could be judged, and with the outcomes of
            `robustness` and `modes`. An image without a score is a non-response and is in no other figure.
        threshold: the frozen one.
        about: which rows these are, in words.
    """
    every = rows = with_people(rows)
    handled, silent = robustness.figures(rows) | modes.figures(rows), _non_responses(rows)
    rows = rows[rows["score"].notna()]
    scores = rows["score"].to_numpy(dtype="float64")
    live = (rows["label"] == "live").to_numpy(dtype=bool)
    species = rows["pai_species"].to_numpy(dtype=object)
    tree: dict[str, Any] = {
        "about": about,
        "n": len(rows),
        "n_live": int(live.sum()),
        "n_spoof": int((~live).sum()),
        "n_subjects": len(set(people(rows))),
    }
    statistics: dict[str, Statistic] = {
        "auc": metrics.auc_of,
        "eer": metrics.eer_of,
        "hter": partial(metrics.hter_of, threshold=threshold),
        "hter_oracle_eer": metrics.hter_oracle_of,
        "ece": metrics.ece_of,
        "tpr_at_fpr_1": partial(metrics.tpr_at_fpr_of, fpr=FPR_LIMIT),
    }
    for name, limit in APCER_LIMITS.items():
        statistics[name] = partial(metrics.bpcer_at_apcer_of, species_N=species, apcer=limit)
    lacking = [word for word, n in (("bona fide", tree["n_live"]), ("attack", tree["n_spoof"])) if n == 0]
    if lacking:
        reason = f"no {' and no '.join(lacking)} image in this slice"
        tree.update({name: {"value": None, "reason": reason, "n": len(rows)} for name in statistics})
    else:
        whole = Sweep(scores)
        spread = subject_bootstrap(
            scores, live, species, people(rows), threshold=threshold, resamples=config.bootstrap, seed=config.seed
        )
        for name, statistic in statistics.items():
            tree[name] = {"value": float(statistic(whole, live)[0]), **_interval(spread[name]), "n": len(rows)}
        tree["eer"]["threshold"] = metrics.eer(scores, live).threshold
    tree.update(_rates(rows, threshold) | _explanations(rows))
    tree["apcer"] = _unmeasured(every, "pai_species", "got an answer") | tree["apcer"]
    if rows["explanation"].notna().any():
        by_type = _unmeasured(every, "spoof_type", "was rejected and explained")
        tree["explanation_medium_by_type"] = by_type | tree["explanation_medium_by_type"]
    return tree | handled | silent


def _non_responses(rows: pd.DataFrame) -> dict[str, Any]:
    """Non-response rates (ISO/IEC 30107-3): `apnrr` of each PAI species, the worst of them, `bpnrr`; the reasons."""
    silent, live = rows["score"].isna(), rows["label"] == "live"

    def rate(chosen: pd.Series) -> Rate:
        return Rate.of(silent[chosen], people(rows[chosen]))

    by_species = {str(s): rate(~live & (rows["pai_species"] == s)) for s in sorted(set(rows.loc[~live, "pai_species"]))}
    worst = max(by_species, key=lambda name: by_species[name].badness, default=None)
    missing = {"value": None, "reason": "no attack image in this slice", "n": 0}
    reasons = rows.loc[silent, "refused_reason"].value_counts().sort_index()
    return {
        "non_responses": {str(reason): int(n) for reason, n in reasons.items()},
        "apnrr": {name: one.entry() for name, one in by_species.items()},
        "apnrr_max": {**by_species[worst].entry(), "species": worst} if worst else missing,
        "bpnrr": rate(live).entry(),
    }


def _unmeasured(rows: pd.DataFrame, kind: str, what: str) -> dict[str, Any]:
    """An entry without a value for each species or type of attack; those that were measured get one in its place.

    A rule that asks each of them for a least n, or for an interval, must not pass because one is not there.
    """
    counts = rows.loc[rows["label"] == "spoof", kind].value_counts().sort_index()
    return {
        str(name): {"value": None, "reason": f"none of {n} {what}", "n": 0, "n_subjects": 0}
        for name, n in counts.items()
    }


def _interval(spread: tuple[float, float] | str) -> dict[str, Any]:
    return {"interval": None, "no_interval": spread} if isinstance(spread, str) else {"interval": list(spread)}


def _rates(rows: pd.DataFrame, threshold: float) -> dict[str, dict[str, Any]]:
    by_species, of_live = apcer(rows, threshold), bpcer(rows, threshold)
    entries: dict[str, dict[str, Any]] = {
        "apcer": {name: rate.entry() for name, rate in by_species.items()},
        "apcer_pooled": apcer_pooled(rows, threshold).entry(),
        "bpcer": of_live.entry(),
    }
    missing = {"value": None, "reason": "no attack image in this slice", "n": 0}
    # Of two species with the same rate, the one of fewer people: its wider interval claims less.
    worst = max(by_species, key=lambda name: by_species[name].badness, default=None)
    entries["apcer_max"] = {**entries["apcer"][worst], "species": worst} if worst else missing
    if worst and of_live.n:
        value = (by_species[worst].value + of_live.value) / 2
        entries["acer_not_iso"] = {"value": value, "interval": None, "apcer": "max", "n": len(rows)}
    else:
        entries["acer_not_iso"] = {"value": None, "reason": "needs bona fide and attack images", "n": len(rows)}
    return entries


def _explanations(rows: pd.DataFrame) -> dict[str, Any]:
    by_type = {kind: rate.entry_of_successes() for kind, rate in explanations.right_medium_by_type(rows).items()}
    # Of two types with the same share, the one of fewer people: its wider interval claims less.
    worst = min(by_type, key=lambda kind: [by_type[kind][k] for k in ("value", "n_subjects", "n")], default=None)
    counted = {
        "explanation_contradictions": explanations.contradictions(rows),
        "explanation_commonest": explanations.commonest(rows),
    }
    claims = explanations.cues_not_measured(rows)
    if claims.n:
        wrong_cues = claims.entry()
    elif (rows["explanation"].notna() & rows["cues_measured"].notna()).any():
        # Who claims nothing claims nothing wrong.
        wrong_cues = {"value": 0.0, "interval": None, "no_interval": "no cue was claimed", "errors": 0, "n": 0}
    else:
        wrong_cues = {"value": None, "reason": "no explained image has evidence of specialists", "n": 0}
    return {
        "explanation_agreement": explanations.agreement(rows).entry_of_successes(),
        "explanation_medium": explanations.right_medium(rows).entry_of_successes(),
        "explanation_medium_by_type": by_type,
        "explanation_medium_least": {**by_type[worst], "spoof_type": worst} if worst else {**NO_EXPLANATION},
        "attacks_named": explanations.attacks_named(rows),
        "cues": explanations.cues_claimed(rows),
        "explanation_cues_not_measured": wrong_cues,
        **{name: rate.entry() if rate.n else {**NO_EXPLANATION} for name, rate in counted.items()},
    }
