"""Is the demo world honest? AUC of a linear probe on trivial cues, each PAI species against bona fide."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.figure import figure


def main() -> int:
    """Renders the demo data set (or reads one) and probes it; 1 when a species is told apart better than the bar."""
    from ifas.data.simulator import make_demo
    from ifas.data.simulator.leak_probe import BAR, cues, leaks

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, help="a demo data set that is there already")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--single", action="store_true", help="each cue alone as well")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.demo or Path(scratch) / "demo"
        if args.demo is None:
            made = make_demo(folder, seed=args.seed, workers=2)
            figure("world.seconds", made.seconds, "s")
            figure("world.images", made.images, "images")
        records = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        values = np.stack([cues((folder / r["path"]).read_bytes(), r["face_box"]) for r in records])
    ok = True
    found = leaks(values, [r["pai_species"] for r in records], [r["subject_id"] for r in records], single=args.single)
    for one in found:
        bar = BAR if one.cues == "all" else None
        name = f"world.leak.{one.species}.{one.cues}"
        ok &= figure(name, one.auc, f"AUC, 95 % interval {one.low:.2f} to {one.high:.2f}, n = {one.attacks}", bar=bar)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
