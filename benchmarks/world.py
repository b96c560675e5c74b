"""Trivial cues in the demo data: AUC of a linear probe on them, each PAI species against bona fide."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.figure import figure


def main() -> int:
    """Renders demo datasets and probes them; returns 1 if the probe separates a species better than the bar."""
    from ifas.simulator import make_demo
    from ifas.simulator.leak_probe import BAR, cues, leaks

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7], help="several are probed together")
    parser.add_argument("--single", action="store_true", help="each cue alone as well")
    args = parser.parse_args()
    values, species, subjects = [], [], []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "demo"
            made = make_demo(folder, seed=seed, workers=2)
            figure(f"world.seconds.{seed}", made.seconds, f"s, {made.images} images")
            for line in (folder / "samples.jsonl").read_text().splitlines():
                record = json.loads(line)
                values.append(cues((folder / record["path"]).read_bytes(), record["face_box"]))
                species.append(record["pai_species"])
                subjects.append(f"{seed} {record['subject_id']}")
    ok = True
    found = leaks(np.stack(values), species, subjects, single=args.single)
    for one in found:
        bar = BAR if one.cues == "all" else None
        name = f"world.leak.{one.species}.{one.cues}"
        ok &= figure(name, one.auc, f"AUC, 95 % interval {one.low:.2f} to {one.high:.2f}, n = {one.attacks}", bar=bar)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
