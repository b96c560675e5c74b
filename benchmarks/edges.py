"""`python -m benchmarks.edges [--fit]`: how well edges of sheets and devices are separated from other straight lines.

Images of seeds that nothing else uses; the simulator knows the edges of every medium. `--fit` makes the table
`ifas/captioning/edge_odds.json` anew: a logistic regression on piecewise linear functions of every feature, on the
first seeds. The figures are always those of the last seed, which is never fitted on.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.figure import figure
from ifas.captioning.edges import FEATURES, TABLE, Edge, edges, odds_table
from ifas.captioning.view import View
from ifas.simulator import make_demo
from ifas.simulator.camera import PICTURE

FITTED, HELD_OUT = (11, 12, 13, 14, 15, 16), 17
KNOTS = 6
NEAR = 5.0  # pixels between a line and a side of the medium, for both to be one


def of_medium(ends: tuple[float, float, float, float], known: list[list[float]]) -> bool:
    """Whether a line lies along one of the medium's."""
    line = np.array(ends).reshape(2, 2)
    for one in known:
        a, b = np.array(one).reshape(2, 2)
        length = float(np.hypot(*(b - a)))
        along = (b - a) / length
        apart = line - a
        far = np.abs(apart @ np.array([-along[1], along[0]])).max()
        reach = apart @ along
        if far < NEAR and reach.min() > -NEAR and reach.max() < length + NEAR:
            return True
    return False


def shows(known: list[list[float]]) -> int:
    """How many of the medium's edges lie in the image for a fifth of its side or more."""
    count = 0
    for x0, y0, x1, y1 in known:
        t = np.linspace(0, 1, 200)
        x, y = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
        within = (x > 1) & (x < PICTURE - 1) & (y > 1) & (y < PICTURE - 1)
        count += bool(within.mean() * np.hypot(x1 - x0, y1 - y0) > 0.2 * PICTURE)
    return count


def lines(seed: int) -> list[tuple[dict[str, Any], list[Edge]]]:
    """Every image of a demo data set with its lines."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "demo"
        make_demo(folder, seed=seed, workers=2)
        rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        return [
            (row, edges(View.of(cv2.imread(str(folder / row["path"]))[..., ::-1].copy(), tuple(row["face_box"]))))
            for row in rows
        ]


def fit() -> None:
    """Writes the table."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import SplineTransformer

    shown = [pair for seed in FITTED for pair in lines(seed) if pair[0]["spoof_type"] in ("print", "replay")]
    x = np.array([edge.features for _, found in shown for edge in found])
    y = np.array([of_medium(edge.ends, row["attack"]["edges"]) for row, found in shown for edge in found])
    splines = SplineTransformer(KNOTS, degree=1, knots="quantile", extrapolation="constant").fit(x)
    model = LogisticRegression(C=0.3, max_iter=5000).fit(splines.transform(x), y)
    values = model.coef_[0].reshape(len(FEATURES), -1)
    knots = [np.quantile(column, np.linspace(0, 1, KNOTS)) for column in x.T]
    # The value of a piecewise linear function at a knot is the coefficient of the hat that peaks there.
    shares = {
        name: [np.round(at, 4).tolist(), np.round(value, 4).tolist()]
        for name, at, value in zip(FEATURES, knots, values, strict=True)
    }
    table = {
        "lines": len(y),
        "of_media": int(y.sum()),
        "offset": round(float(model.intercept_[0]), 4),
        "shares": shares,
    }
    TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    odds_table.cache_clear()


def main() -> int:
    """Prints the figures of the held-out seed."""
    from sklearn.metrics import roc_auc_score

    if "--fit" in sys.argv[1:]:
        fit()
    shown = lines(HELD_OUT)
    media = [(row, found) for row, found in shown if row["spoof_type"] in ("print", "replay")]
    truth = [of_medium(e.ends, row["attack"]["edges"]) for row, found in media for e in found]
    figure("edges: AUC of lines", roc_auc_score(truth, [e.chance for _, found in media for e in found]), "")
    best = np.array([max((e.chance for e in found), default=0.0) for _, found in media])
    seen = np.array([shows(row["attack"]["edges"]) > 0 for row, _ in media])
    figure("edges: AUC of pictures", roc_auc_score(seen, best), "")
    live = np.array([max((e.chance for e in f), default=0.0) for r, f in shown if r["spoof_type"] == "live"])
    for least in (0.4, 0.5, 0.6, 0.7):
        said = best >= least
        figure(f"edges: precision from {least} on", float(seen[said].mean()), "")
        figure(f"edges: recall from {least} on", float(said[seen].mean()), "")
        figure(f"edges: bona fide with one from {least} on", float((live >= least).mean()), "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
