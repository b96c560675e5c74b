"""`python -m benchmarks.specialists [SUBJECTS]`: what specialists say, against the ground truth of the simulator.

Images of three seeds on which nothing was set by hand. For every specialist:

- *precision*: of the clauses said, the share that is true of what stands before the camera;
- *recall*: of the images in which it can plainly be seen, the share that says it. Seen plainly are: an edge of the
  medium that runs through a fifth of the image's side (a bezel: a dark one; an enclosure: two edges); a pixel pattern
  of 2 % contrast; half a line of text; a hand; gloss on 2 % of a mask; a blur of 0.9 pixels. Planarity is true of every
  print and replay, layering of every mask;

then the label audit: a tenth of the labels is changed, live against attack or to another attack; of those listed,
the share whose label was changed, and of the changed ones the share listed; and *wrong medium*: clauses that belong to
another spoof type than the image's, with and without the conditional rule.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.edges import shows
from benchmarks.figure import figure
from ifas.captioning.clauses import describe
from ifas.captioning.measure import measure
from ifas.captioning.specialists import measurements, specialists
from ifas.core.claims import SUPPORTED_FROM
from ifas.simulator import make_demo

KINDS = ("live", "print", "replay", "mask")
SEEDS = (41, 42, 43)


def truth(row: dict[str, Any]) -> dict[str, tuple[bool, bool]]:
    """By specialist: whether its clause is true of an image, and whether that can plainly be seen."""
    attack, kind = row["attack"] or {}, row["spoof_type"]
    seen = attack.get("visible", {})
    edges = shows(attack.get("edges", []))
    dark = kind == "replay" and edges > 0
    paper = kind == "print" and edges > 0
    flat, mask = kind in ("print", "replay"), kind == "mask"
    text, hand = bool(seen.get("screen_text")), seen.get("holder") == "hand"
    return {
        "bezel": (dark, dark and attack["bezel_albedo"] <= 0.1 and seen["border"] > 0.2),
        "paper margin": (paper, paper and attack["border"] > 0),
        "medium border": (edges > 0, edges > 0),
        "enclosure": (edges > 1, edges > 1),
        "recapture": (seen.get("pattern", 0) > 0.004, seen.get("pattern", 0) > 0.02),
        "screen text": (text, text),
        "holder": (hand, hand),
        "specular": (mask and seen["glare"] > 0.001, mask and seen["glare"] > 0.02),
        "sharpness": (flat and seen["blur"] > 0.7, flat and seen["blur"] > 0.9),
        "planarity": (flat, flat),
        "layering": (mask and seen["rim"] > 0, mask and seen["rim"] > 0),
    }


def main() -> int:
    """Prints the figures; 1 where a bar is missed."""
    subjects = int(sys.argv[1]) if sys.argv[1:] else 44
    rows, seen = [], []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "demo"
            make_demo(folder, seed=seed, subjects=subjects, workers=2)
            for line in (folder / "samples.jsonl").read_text().splitlines():
                row = json.loads(line)
                picture = cv2.imread(str(folder / row["path"]))[..., ::-1].copy()
                rows.append(row)
                seen.append(measurements(measure(picture, tuple(row["face_box"]))))
    kinds = [row["spoof_type"] for row in rows]
    said = [{c.specialist for c in describe(one, kind).clauses} for one, kind in zip(seen, kinds, strict=True)]
    real = [truth(row) for row in rows]
    ok, spoken, right, plain, found = True, 0, 0, 0, 0
    for name in real[0]:
        told = [name in s for s in said]
        true, seeable = [t[name][0] for t in real], [t[name][1] for t in real]
        hits = sum(a and b for a, b in zip(told, true, strict=True))
        hits_seen = sum(a and b for a, b in zip(told, seeable, strict=True))
        if sum(told):
            figure(f"precision of {name} ({sum(told)} said)", hits / sum(told), "")
        figure(f"recall of {name} ({sum(seeable)} seen)", hits_seen / max(1, sum(seeable)), "")
        spoken, right, plain, found = spoken + sum(told), right + hits, plain + sum(seeable), found + hits_seen
    ok &= figure(f"clause precision ({spoken} said)", right / max(1, spoken), "", bar=0.95, bar_is="value >=")
    ok &= figure(f"clause recall ({plain} seen)", found / max(1, plain), "", bar=0.8, bar_is="value >=")

    listed = caught = planted = 0
    for draw in range(20):
        # One draw changes few labels, so the figures are those of twenty.
        rng = np.random.default_rng(draw)
        changed = set(rng.permutation(len(rows))[: len(rows) // 10].tolist())
        for i, (one, kind) in enumerate(zip(seen, kinds, strict=True)):
            label = str(rng.choice([k for k in KINDS if k != kind])) if i in changed else kind
            doubted = bool(describe(one, label).doubts)
            listed, caught, planted = listed + doubted, caught + (doubted and i in changed), planted + (i in changed)
    name = f"label audit, precision ({listed} listed in 20 draws)"
    ok &= figure(name, caught / max(1, listed), "", bar=0.8, bar_is="value >=")
    figure(f"label audit, changed labels listed ({planted} changed)", caught / max(1, planted), "")

    def wrong(conditional: bool) -> float:
        clauses = [
            (c.specialist, kind)
            for one, kind in zip(seen, kinds, strict=True)
            for c in describe(one, kind, conditional=conditional).clauses
        ]
        # A specialist that is not let speak supports nothing, and its clauses are nobody's medium.
        heard = [(s, kind) for s, kind in clauses if specialists()[s].supports]
        return sum(kind not in specialists()[s].supports for s, kind in heard) / max(1, len(heard))

    with_rule, without = wrong(True), wrong(False)
    ok &= figure("wrong medium without the conditional rule", without, "", baseline=with_rule or None)
    figure("wrong medium with the conditional rule", with_rule, "")
    sure = {n: sum(one[n].confidence >= SUPPORTED_FROM for one in seen) for n in specialists()}
    print(json.dumps({"pictures": len(rows), "fires": sure}))
    return 0 if ok and without > with_rule else 1


if __name__ == "__main__":
    sys.exit(main())
