"""Calibration: temperature and bias, fitted once on development data of the source domains, then frozen.

Platt scaling (Platt 1999): a logistic regression on the model's log odds, fitted by maximum likelihood. Choices:

- Bona fide and attacks weigh the same, however many there are of each: the mix of a dataset is an accident of how it
  was collected. A score of 0.5 then says that the image is as typical of one as of the other.
- Platt's targets, (n + 1) / (n + 2) instead of 1 for the n bona fide and 1 / (n + 2) instead of 0 for the n attacks,
  keep the temperature from going to 0 where the development data are separated without an error. Its bounds
  (`TEMPERATURES`) hold where scores tell nothing, or rank the wrong way round: the order of scores always stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ifas.core.calibration import Calibration, log_odds
from ifas.core.config import EvaluateConfig, ProtocolConfig
from ifas.evaluation import metrics
from ifas.evaluation.threshold import development
from ifas.evaluation.tracks import votes, voting, with_track_scores

if TYPE_CHECKING:
    import pandas as pd

#: Smallest and largest temperature.
TEMPERATURES = (0.05, 20.0)
#: Log odds beyond this are those of a probability that rounds to 1.
CERTAIN = 36.0


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A calibration and where it comes from; numbers count images, or tracks where these have one vote."""

    calibration: Calibration
    domains: tuple[str, ...]
    n_live: int
    n_spoof: int
    n_subjects: int

    def entry(self) -> dict[str, Any]:
        """As it stands in metrics.json."""
        return {
            **self.calibration.model_dump(),
            "score": "1 / (1 + exp(-(ln(raw / (1 - raw)) / temperature + bias)))",
            "class_balanced": True,
            "from": {"split": "dev", "domains": list(self.domains)},
            "n": self.n_live + self.n_spoof,
            "n_live": self.n_live,
            "n_spoof": self.n_spoof,
            "n_subjects": self.n_subjects,
        }


def calibrated(
    predictions: pd.DataFrame, protocol: ProtocolConfig, config: EvaluateConfig
) -> tuple[pd.DataFrame, Fitted | None]:
    """The same rows with `score` made from `raw_score`: calibrated if `evaluate.calibrate`, then the mean over a track
    if tracks have one vote. The same table always gets the same scores.

    Raises:
        ConfigError, DataError: as `threshold.freeze`.
    """
    found = fit(predictions, protocol, config) if config.calibrate else None
    raw = predictions["raw_score"].to_numpy(dtype="float64")
    scored = predictions.assign(score=found.calibration.apply(raw) if found else raw)
    return (with_track_scores(scored) if config.unit == "track" else scored), found


def fit(predictions: pd.DataFrame, protocol: ProtocolConfig, config: EvaluateConfig) -> Fitted:
    """The calibration on the released dev rows of the source domains.

    Args:
        predictions: the whole table; `raw_score` is null where an image was refused.

    Raises:
        ConfigError, DataError: as `threshold.freeze`.
    """
    rows = development(predictions, protocol, "raw_score")
    weights = votes(rows, config).to_numpy(dtype="float64")
    live = (rows["label"] == "live").to_numpy(dtype=bool)
    n_live, n_spoof = float(weights[live].sum()), float(weights[~live].sum())
    temperature, bias = platt(rows["raw_score"].to_numpy(dtype="float64"), live, weights)
    return Fitted(
        calibration=Calibration(temperature=temperature, bias=bias),
        domains=protocol.source_domains,
        n_live=round(n_live),
        n_spoof=round(n_spoof),
        n_subjects=int(rows["subject_id"].nunique()),
    )


def platt(raw_N: metrics.Floats, live_N: metrics.Bools, weights_N: metrics.Floats) -> tuple[float, float]:
    """Temperature and bias that minimise the class-balanced negative log-likelihood of Platt's targets.

    Args:
        raw_N: scores in [0, 1].
        live_N: bona fide or not; there are both.
        weights_N: votes of each image.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    z_N = log_odds(raw_N).clip(-CERTAIN, CERTAIN)
    n_live, n_spoof = weights_N[live_N].sum(), weights_N[~live_N].sum()
    target_N = np.where(live_N, (n_live + 1) / (n_live + 2), 1 / (n_spoof + 2))
    share_N = weights_N / np.where(live_N, 2 * n_live, 2 * n_spoof)

    def loss(slope_and_bias: metrics.Floats) -> tuple[float, metrics.Floats]:
        slope, bias = slope_and_bias
        odds_N = slope * z_N + bias
        nll_N = np.logaddexp(0, odds_N) - target_N * odds_N
        excess_N = share_N * (expit(odds_N) - target_N)
        return float(share_N @ nll_N), np.array([excess_N @ z_N, excess_N.sum()])

    low, high = TEMPERATURES
    found = minimize(  # convex: where it starts does not matter
        loss,
        np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(1 / high, 1 / low), (-CERTAIN, CERTAIN)],
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000},
    )
    slope, bias = found.x
    return float(1 / slope), float(bias)


def before_and_after(rows: pd.DataFrame, config: EvaluateConfig) -> dict[str, Any]:
    """ECE and NLL, bona fide and attacks weighing the same, of raw and of calibrated scores.

    Args:
        rows: predictions with `raw_score` and `score`, of one slice.
    """
    if config.unit == "track":
        rows = voting(with_track_scores(rows, "raw_score"), config)
    rows = rows[rows["score"].notna()]
    live = (rows["label"] == "live").to_numpy(dtype=bool)
    if live.all() or not live.any():
        return {"n": len(rows), "ece": None, "nll": None, "reason": "needs bona fide and attack images"}
    raw, score = (rows[name].to_numpy(dtype="float64") for name in ("raw_score", "score"))
    return {
        "n": len(rows),
        "ece": {"before": metrics.ece(raw, live), "after": metrics.ece(score, live)},
        "nll": {"before": metrics.nll(raw, live), "after": metrics.nll(score, live)},
    }
