"""`python -m benchmarks.recapture [--fit]`: how well pixel grids and halftones are separated from other fine detail.

Prints and replays of seeds that nothing else uses; the simulator knows the contrast of every pattern. `--fit` makes the
table `ifas/captioning/specialists/recapture_odds.json` anew: a logistic regression on named measurements, on the first
seeds. The figures are always those of the last seed, which is never fitted on.
"""

from __future__ import annotations

import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.figure import figure
from ifas.captioning.measure import Measured, measure
from ifas.captioning.specialists.recapture import TABLE, chance, odds_table
from ifas.simulator import make_demo

FITTED, HELD_OUT = (51, 52, 53, 54), 55
NAMES = (
    *("face_sharpness", "surround_sharpness", "contrast", "brightness"),
    *("wave_peak", "dot_peak", "fine_over_coarse", "skin_texture"),
)
THERE, PLAIN = 0.004, 0.02  # contrast from which a pattern is there, and is plainly seen


def _measured(job: tuple[str, dict[str, Any]]) -> Measured:
    folder, row = job
    return measure(cv2.imread(str(Path(folder) / row["path"]))[..., ::-1].copy(), tuple(row["face_box"]))


def flat(seed: int) -> tuple[list[dict[str, float]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Measurements of every print and replay of a seed, and the contrast of its pattern."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "demo"
        make_demo(folder, seed=seed, workers=2)
        rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        rows = [row for row in rows if row["spoof_type"] in ("print", "replay")]
        with ProcessPoolExecutor(2) as pool:
            seen = list(pool.map(_measured, [(str(folder), row) for row in rows], chunksize=16))
        return [one.values for one in seen], np.array([row["attack"]["visible"]["pattern"] for row in rows])


def fit() -> None:
    """Writes the table."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    shown = [flat(seed) for seed in FITTED]
    x = np.array([[one[name] for name in NAMES] for values, _ in shown for one in values])
    y = np.concatenate([pattern for _, pattern in shown]) > THERE
    scale = StandardScaler().fit(x)
    model = LogisticRegression(C=0.02, max_iter=3000).fit(scale.transform(x), y)
    weights = model.coef_[0] / scale.scale_
    table = {
        "pictures": len(y),
        "with_pattern": int(y.sum()),
        "offset": round(float(model.intercept_[0] - weights @ scale.mean_), 4),
        "weights": {name: round(float(weight), 4) for name, weight in zip(NAMES, weights, strict=True)},
    }
    TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    odds_table.cache_clear()


def main() -> int:
    """Prints the figures of the held-out seed."""
    from sklearn.metrics import roc_auc_score

    if "--fit" in sys.argv[1:]:
        fit()
    values, pattern = flat(HELD_OUT)
    score = np.array([chance(one) for one in values])
    figure("recapture: AUC of a pattern that is there", float(roc_auc_score(pattern > THERE, score)), "")
    figure("recapture: AUC of one plainly seen", float(roc_auc_score(pattern > PLAIN, score)), "")
    for least in (0.80, 0.85, 0.90):
        figure(f"recapture: precision from {least} on", float((pattern > THERE)[score >= least].mean()), "")
        figure(
            f"recapture: recall of the plainly seen from {least} on",
            float((score >= least)[pattern > PLAIN].mean()),
            "",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
