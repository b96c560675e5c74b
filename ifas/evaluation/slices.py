"""All figures of one slice of the test rows; a figure that can't be measured is null, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ifas.core.config import EvaluateConfig
from ifas.core.taxonomy import ATTACKS
from ifas.evaluation import explanations, metrics, robustness
from ifas.evaluation.intervals import Statistic, rate_entry, subject_bootstrap
from ifas.evaluation.metrics import Sweep

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "unknown"
#: A figure of explanations in a slice without such ones.
NO_EXPLANATION: Mapping[str, Any] = {"value": None, "reason": "no such explanation in this slice", "n": 0}


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
            `robustness`. An image without a score is a non-response and is in no other figure.
        threshold: the frozen one.
        about: which rows these are, in words.
    """
    handled, silent = robustness.figures(rows), _non_responses(rows)
    rows = rows[rows["score"].notna()]
    scores = rows["score"].to_numpy(dtype="float64")
    live = (rows["label"] == "live").to_numpy(dtype=bool)
    species = rows["pai_species"].to_numpy(dtype=object)
    tree: dict[str, Any] = {
        "about": about,
        "n": len(rows),
        "n_live": int(live.sum()),
        "n_spoof": int((~live).sum()),
        "n_subjects": int(rows["subject_id"].nunique()),
    }
    statistics: dict[str, Statistic] = {
        "auc": metrics.auc_of,
        "eer": metrics.eer_of,
        "hter": partial(metrics.hter_of, threshold=threshold),
        "hter_oracle_eer": metrics.hter_oracle_of,
        "ece": metrics.ece_of,
        "tpr_at_fpr_1": partial(metrics.tpr_at_fpr_of, fpr=0.01),
    }
    for percent in (10, 5, 1):
        statistics[f"bpcer_at_apcer_{percent}"] = partial(
            metrics.bpcer_at_apcer_of, species_N=species, apcer=percent / 100
        )
    lacking = [word for word, n in (("bona fide", tree["n_live"]), ("attack", tree["n_spoof"])) if n == 0]
    if lacking:
        reason = f"no {' and no '.join(lacking)} image in this slice"
        tree.update({name: {"value": None, "reason": reason, "n": len(rows)} for name in statistics})
    else:
        whole = Sweep(scores)
        spread = subject_bootstrap(
            statistics, scores, live, rows["subject_id"].tolist(), resamples=config.bootstrap, seed=config.seed
        )
        for name, statistic in statistics.items():
            tree[name] = {"value": float(statistic(whole, live)[0]), **_interval(spread[name]), "n": len(rows)}
        tree["eer"]["threshold"] = metrics.eer(scores, live).threshold
    tree.update(_rates(scores, live, species.tolist(), threshold))
    tree.update(_explanations(rows))
    return tree | handled | silent


def _non_responses(rows: pd.DataFrame) -> dict[str, Any]:
    """Non-response rates (ISO/IEC 30107-3): `apnrr` of each PAI species, the worst of them, `bpnrr`; the reasons."""
    silent, live = rows["score"].isna(), rows["label"] == "live"

    def rate(chosen: pd.Series) -> metrics.Rate:
        return metrics.Rate(int((silent & chosen).sum()), int(chosen.sum()))

    by_species = {str(s): rate(~live & (rows["pai_species"] == s)) for s in sorted(set(rows.loc[~live, "pai_species"]))}
    worst = max(by_species, key=lambda name: (by_species[name].value, -by_species[name].n), default=None)
    missing = {"value": None, "reason": "no attack image in this slice", "n": 0}
    reasons = rows.loc[silent, "refused_reason"].value_counts().sort_index()
    return {
        "non_responses": {str(reason): int(n) for reason, n in reasons.items()},
        "apnrr": {name: rate_entry(one) for name, one in by_species.items()},
        "apnrr_max": {**rate_entry(by_species[worst]), "species": worst} if worst else missing,
        "bpnrr": rate_entry(rate(live)),
    }


def _interval(spread: tuple[float, float] | str) -> dict[str, Any]:
    return {"interval": None, "no_interval": spread} if isinstance(spread, str) else {"interval": list(spread)}


def _rates(
    scores: metrics.Floats, live: metrics.Bools, species: list[str], threshold: float
) -> dict[str, dict[str, Any]]:
    by_species = metrics.apcer(scores, live, species, threshold)
    bpcer = metrics.bpcer(scores, live, threshold)
    pooled = metrics.Rate(sum(r.errors for r in by_species.values()), sum(r.n for r in by_species.values()))
    entries: dict[str, dict[str, Any]] = {
        "apcer": {name: rate_entry(rate) for name, rate in by_species.items()},
        "apcer_pooled": rate_entry(pooled),
        "bpcer": rate_entry(bpcer),
    }
    missing = {"value": None, "reason": "no attack image in this slice", "n": 0}
    # Of two species with the same rate, the one with fewer images: its wider interval claims less.
    worst = max(by_species, key=lambda name: (by_species[name].value, -by_species[name].n), default=None)
    entries["apcer_max"] = {**entries["apcer"][worst], "species": worst} if worst else missing
    if worst and bpcer.n:
        value = (by_species[worst].value + bpcer.value) / 2
        entries["acer_not_iso"] = {"value": value, "interval": None, "apcer": "max", "n": len(scores)}
    else:
        entries["acer_not_iso"] = {"value": None, "reason": "needs bona fide and attack images", "n": len(scores)}
    return entries


def _explanations(rows: pd.DataFrame) -> dict[str, Any]:
    by_type = {kind: rate_of_successes(rate) for kind, rate in explanations.right_medium_by_type(rows).items()}
    # Of two types with the same share, the one with fewer images: its wider interval claims less.
    worst = min(by_type, key=lambda kind: (by_type[kind]["value"], by_type[kind]["n"]), default=None)
    counted = {
        "explanation_contradictions": explanations.contradictions(rows),
        "explanation_commonest": explanations.commonest(rows),
    }
    claims = explanations.cues_not_measured(rows)
    if claims.n:
        wrong_cues = rate_entry(claims)
    elif (rows["explanation"].notna() & rows["cues_measured"].notna()).any():
        # Who claims nothing claims nothing wrong.
        wrong_cues = {"value": 0.0, "interval": None, "no_interval": "no cue was claimed", "errors": 0, "n": 0}
    else:
        wrong_cues = {"value": None, "reason": "no explained image has evidence of specialists", "n": 0}
    return {
        "explanation_agreement": rate_of_successes(explanations.agreement(rows)),
        "explanation_medium": rate_of_successes(explanations.right_medium(rows)),
        "explanation_medium_by_type": by_type,
        "explanation_medium_least": {**by_type[worst], "spoof_type": worst} if worst else {**NO_EXPLANATION},
        "attacks_named": explanations.attacks_named(rows),
        "cues": explanations.cues_claimed(rows),
        "explanation_cues_not_measured": wrong_cues,
        **{name: rate_entry(rate) if rate.n else {**NO_EXPLANATION} for name, rate in counted.items()},
    }


def rate_of_successes(rate: metrics.Rate) -> dict[str, Any]:
    """Like `rate_entry`, for a share that counts successes: they are called `hits`."""
    if rate.n == 0:
        return {**NO_EXPLANATION}
    return {("hits" if key == "errors" else key): value for key, value in rate_entry(rate).items()}
