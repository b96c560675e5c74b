"""95 % interval of a rate whose pictures come from few people.

Pictures of one person go wrong together, so n pictures tell as much as n / (1 + (m - 1) r) independent ones: m is the
mean number of pictures of the person of a picture, r the intra-class correlation of errors (Kish 1965). r is not known,
and with few errors hardly measured. So it is not estimated, but averaged over: each r makes a Jeffreys interval's
Beta distribution (Brown, Cai and DasGupta 2001) with that many pictures, and its weight is how likely the errors of the
subjects are under it (beta-binomial, the rate integrated out). Before any error is seen, pictures are as likely to be
independent (r = 0) as not, and then every r between 0 and 1 is as likely.

The ends are those of the mixture. Errors of no subject, or of all, tell nothing of r: then a subject counts once, as if
r were 1 (Clopper-Pearson; for 95 % on both sides, about 3.7 / subjects). The coverage that this reaches is measured by
`python -m benchmarks.intervals`, beside what the other usual methods reach.

Shapes: S subjects, R values of r, P nodes of the rate, U distinct counts.
"""

from __future__ import annotations

import numpy as np

from ifas.core.measures import TAIL, unseen
from ifas.evaluation.metrics import Floats, Ints

#: Jeffreys' prior of a share: a half error and a half success.
JEFFREYS = 0.5
#: Values of r looked at. Twice as many change no end by 1 % (test).
CORRELATIONS = 32
#: Nodes of the integral over the rate, at each r. Twice as many change no end by 1 % (test).
RATES = 12
#: logit(r) from independent to identical for any number of pictures that a disk holds.
LOGIT_RANGE = (-18.0, 18.0)
#: Log-likelihood below the best from where on an r has no weight (exp(-16) = 1e-7).
NEGLIGIBLE = 16.0
#: The observed spread of subjects is trusted from so many subjects on; below, it is mostly too small (Cameron and
#: Miller 2015, "A practitioner's guide to cluster-robust inference": few are less than 20 to 50).
MANY = 50


def rate_interval(errors_S: Ints, counts_S: Ints) -> tuple[float, float]:
    """95 % interval of the share of wrong pictures, sum(errors) / sum(counts).

    Args:
        errors_S: wrong pictures of each subject.
        counts_S: pictures of each subject, above 0. No subject at all: 0 to 1.
    """
    from scipy.special import betaincinv

    errors, n, subjects = int(errors_S.sum()), int(counts_S.sum()), len(counts_S)
    if subjects == 0:
        return 0.0, 1.0
    if errors in (0, n):
        far = unseen(subjects)
        return (0.0, far) if errors == 0 else (1 - far, 1.0)
    independent_R, weight_R = _effective(errors_S, counts_S)
    wrong_R = errors / n * independent_R + JEFFREYS
    right_R = (1 - errors / n) * independent_R + JEFFREYS
    low, high = (_quantile(wrong_R, right_R, weight_R, tail) for tail in (TAIL, 1 - TAIL))
    if subjects >= MANY:
        observed = _spread(errors_S, counts_S)
        shares = betaincinv(errors / n * observed + JEFFREYS, (1 - errors / n) * observed + JEFFREYS, [TAIL, 1 - TAIL])
        low, high = min(low, float(shares[0])), max(high, float(shares[1]))
    return low, high


def _effective(errors_S: Ints, counts_S: Ints) -> tuple[Floats, Floats]:
    """Numbers of independent pictures that these may be worth, and the weight of each (sums to 1); both (R + 1,)."""
    errors, n = float(errors_S.sum()), float(counts_S.sum())
    if len(counts_S) == 1:
        return np.ones(1), np.ones(1)  # one subject can't tell alike from independent: its pictures count once
    own = float((counts_S.astype(np.float64) ** 2).sum()) / n
    if own == 1:
        return np.array([n]), np.ones(1)  # one picture of each
    from scipy.special import betaln

    logit_R = np.linspace(*LOGIT_RANGE, CORRELATIONS)
    while True:  # the likelihood may be a needle: zoom to where it lives
        r_R = 1 / (1 + np.exp(-logit_R))
        worth_R = n / (1 + (own - 1) * r_R)
        log_R = _likelihood(errors_S, counts_S, r_R, worth_R)
        log_R += np.log(r_R) + np.log1p(-r_R)  # all r alike: dr = r (1 - r) dlogit
        alive = np.flatnonzero(log_R > log_R.max() - NEGLIGIBLE)
        first, last = max(alive[0] - 1, 0), min(alive[-1] + 1, CORRELATIONS - 1)
        if last - first >= CORRELATIONS // 2:
            break
        logit_R = np.linspace(logit_R[first], logit_R[last], CORRELATIONS)
    together_R = log_R + np.log(logit_R[1] - logit_R[0])
    independent = betaln(errors + JEFFREYS, n - errors + JEFFREYS)
    log_weight_R = np.append(together_R, independent)
    weight_R = np.exp(log_weight_R - log_weight_R.max())
    return np.append(worth_R, n), weight_R / weight_R.sum()


def _likelihood(errors_S: Ints, counts_S: Ints, r_R: Floats, worth_R: Floats) -> Floats:
    """log of the probability of the errors at each r, up to a constant, under Jeffreys' prior of the rate: (R,)."""
    from scipy.special import betaincinv, betaln, gammaln

    share = errors_S.sum() / counts_S.sum()
    # Nodes where the integrand lives: quantiles of a Beta of half as many pictures, so with longer tails than it has.
    a_R1, b_R1 = (share * worth_R / 2 + JEFFREYS)[:, None], ((1 - share) * worth_R / 2 + JEFFREYS)[:, None]
    rate_RP = betaincinv(a_R1, b_R1, (np.arange(RATES) + 0.5) / RATES)
    rate_RP = rate_RP.clip(np.finfo(float).tiny, 1 - np.finfo(float).eps)
    drawn_RP = (a_R1 - 1) * np.log(rate_RP) + (b_R1 - 1) * np.log1p(-rate_RP) - betaln(a_R1, b_R1)
    prior_RP = (JEFFREYS - 1) * (np.log(rate_RP) + np.log1p(-rate_RP))
    total_R = (1 - r_R) / r_R
    log_RP = prior_RP - drawn_RP
    for counts, parameter_RP in (
        (errors_S, total_R[:, None] * rate_RP),
        (counts_S - errors_S, total_R[:, None] * (1 - rate_RP)),
    ):
        values_U, times_U = np.unique(counts, return_counts=True)
        log_RP = log_RP + (gammaln(parameter_RP[..., None] + values_U) - gammaln(parameter_RP)[..., None]) @ times_U
    values_U, times_U = np.unique(counts_S, return_counts=True)
    log_R = -(gammaln(total_R[:, None] + values_U) - gammaln(total_R)[:, None]) @ times_U
    return np.asarray(log_R + np.logaddexp.reduce(log_RP, axis=1) - np.log(RATES))


def _spread(errors_S: Ints, counts_S: Ints) -> float:
    """Independent pictures with the variance of the share that the subjects show, by Taylor linearisation of the
    ratio. As in Korn and Graubard (1998), made fewer where the variance is known of few subjects (Student's t)."""
    from scipy.stats import norm, t

    n, subjects = counts_S.sum(), len(counts_S)
    share = errors_S.sum() / n
    variance = subjects / (subjects - 1) * ((errors_S - share * counts_S) ** 2).sum() / n**2
    return float(share * (1 - share) / variance * (norm.ppf(TAIL) / t.ppf(TAIL, subjects - 1)) ** 2)


def _quantile(wrong_R: Floats, right_R: Floats, weight_R: Floats, share: float) -> float:
    """Where the mixture of Beta(wrong, right) has `share` of its weight below."""
    from scipy.optimize import brentq
    from scipy.special import betainc, betaincinv

    ends_R = betaincinv(wrong_R, right_R, share)[weight_R > 0]
    low, high = float(ends_R.min()), float(ends_R.max())
    if high - low < 1e-12:
        return low
    return float(brentq(lambda x: weight_R @ betainc(wrong_R, right_R, x) - share, low, high, xtol=1e-12))
