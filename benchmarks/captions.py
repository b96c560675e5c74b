"""`python -m benchmarks.captions [SUBJECTS]`: what captions say, against the ground truth of the simulator.

- *clause precision*: of the clauses said, the share that is true; *recall*: of the pictures where a border is true, the
  share that says it. Edges enclose a face where the rim of a sheet or display is in the frame; a bezel is true where it
  is that of a display, a paper margin where it is that of a print with a margin. Recapture is true of every print and
  replay (how much of the pattern survives the camera is not recorded, so its recall is no figure of the specialist);
- *label audit*: a tenth of the labels is changed, live against attack or to another attack; of the pictures listed, the
  share whose label was changed, and of the changed ones the share listed;
- *wrong medium*: clauses that belong to another spoof type than the picture's, with and without the conditional rule.
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
from ifas.captioning.clauses import SAID_FROM, describe
from ifas.captioning.measure import measure
from ifas.captioning.specialists import look, specialists
from ifas.data.simulator import make_demo

KINDS = ("live", "print", "replay", "mask")


def truth(row: dict[str, Any]) -> dict[str, bool]:
    """What can be seen in a picture, by specialist; only what the simulator records."""
    attack, kind = row["attack"] or {}, row["spoof_type"]
    rim = bool(attack.get("rim_visible"))
    return {
        "bezel": kind == "replay" and rim,
        "paper margin": kind == "print" and rim and attack.get("border", 0) > 0,
        "recapture": kind in ("print", "replay"),
        "enclosure": rim,
    }


def main() -> int:
    """Prints the figures; 1 where a bar is missed."""
    subjects = int(sys.argv[1]) if sys.argv[1:] else 24
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "demo"
        make_demo(folder, seed=23, subjects=subjects, workers=2)
        rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        seen = [
            look(measure(cv2.imread(str(folder / row["path"]))[..., ::-1].copy(), tuple(row["face_box"])))
            for row in rows
        ]
    kinds = [row["spoof_type"] for row in rows]
    said = [{c.specialist for c in describe(one, kind).clauses} for one, kind in zip(seen, kinds, strict=True)]
    real = [truth(row) for row in rows]
    ok, right, spoken = True, 0, 0
    for name in real[0]:
        hits = sum(name in s and t[name] for s, t in zip(said, real, strict=True))
        all_said, all_true = sum(name in s for s in said), sum(t[name] for t in real)
        right, spoken = right + hits, spoken + all_said
        figure(f"precision of {name} ({all_said} said)", hits / max(1, all_said), "")
        figure(f"recall of {name} ({all_true} true)", hits / max(1, all_true), "")
    ok &= figure(f"clause precision ({spoken} said)", right / max(1, spoken), "", bar=0.95, bar_is="value >=")
    borders = ("bezel", "paper margin", "enclosure")
    hits = sum(n in s and t[n] for s, t in zip(said, real, strict=True) for n in borders)
    whole = sum(t[n] for t in real for n in borders)
    ok &= figure(f"clause recall, borders ({whole} true)", hits / max(1, whole), "", bar=0.8, bar_is="value >=")

    listed = found = planted = 0
    for draw in range(20):
        # One draw changes few labels, so the figures are those of twenty.
        rng = np.random.default_rng(draw)
        changed = set(rng.permutation(len(rows))[: len(rows) // 10].tolist())
        for i, (one, kind) in enumerate(zip(seen, kinds, strict=True)):
            label = str(rng.choice([k for k in KINDS if k != kind])) if i in changed else kind
            doubted = bool(describe(one, label).doubts)
            listed, found, planted = listed + doubted, found + (doubted and i in changed), planted + (i in changed)
    name = f"label audit, precision ({listed} listed in 20 draws)"
    ok &= figure(name, found / max(1, listed), "", bar=0.8, bar_is="value >=")
    figure(f"label audit, changed labels listed ({planted} changed)", found / max(1, planted), "")

    def wrong(conditional: bool) -> float:
        clauses = [
            (c.specialist, kind)
            for one, kind in zip(seen, kinds, strict=True)
            for c in describe(one, kind, conditional=conditional).clauses
        ]
        return sum(kind not in specialists()[s].supports for s, kind in clauses) / max(1, len(clauses))

    with_rule, without = wrong(True), wrong(False)
    ok &= figure("wrong medium without the conditional rule", without, "", baseline=with_rule or None)
    figure("wrong medium with the conditional rule", with_rule, "")
    sure = {n: sum(one[n].confidence >= SAID_FROM for one in seen) for n in specialists()}
    print(json.dumps({"pictures": len(rows), "fires": sure}))
    return 0 if ok and without > with_rule else 1


if __name__ == "__main__":
    sys.exit(main())
