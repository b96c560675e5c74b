"""`python -m benchmarks.portraits --faces FOLDER [--ask FILE ...]`: the demo trained on real portraits.

The portraits are staged once as the subjects of the demo's world and captioned once; then each seed trains, packages
and serves a model. It is asked over HTTP about the photographs of `--ask` (bona fide where the file name holds "live")
and about the portraits of test subjects as they came, which no training and no threshold saw.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.figure import figure
from ifas.cli.demo import publish_demo
from ifas.cli.run import Runner, run_pipeline
from ifas.core.config import load
from ifas.core.environment import prepare
from ifas.core.errors import ImageRefused
from ifas.core.files import read_json, write_json
from ifas.core.records import METRICS_FILE

#: Approved whatever it is worth, and no texts of thousands of test images: the answers below are what counts.
SETTINGS = (
    "gate.policy=builtin:permissive",
    "evaluate.explain=gallery",
    "evaluate.robustness.images=0",
)
SEED = 7  # of the demo's world
ANSWERS_FILE = "portraits.json"


def main() -> int:
    """Prints each seed's answers and the bars; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.portraits")
    parser.add_argument("--faces", type=Path, required=True, help="folder of portraits, one person per file")
    parser.add_argument("--ask", type=Path, nargs="+", default=[], help="photographs; bona fide: 'live' in the name")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--work", type=Path, default=Path("build/benchmark-portraits"), help="kept; a second call goes on"
    )
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    args = parser.parse_args()
    if missing := [str(path) for path in args.ask if not path.is_file()]:
        parser.error(f"not a file: {', '.join(missing)}")
    prepare()
    faces, photographs = args.faces.absolute(), [path.absolute() for path in args.ask]
    work = args.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["IFAS_HOME"] = str(work / "home")
    os.chdir(work)
    overrides = [*SETTINGS, *args.overrides]
    publish_demo(load("laptop", overrides), faces)
    held_out = test_portraits(faces)
    right, accepted = [], []
    for seed in range(args.seeds):
        folder = run_pipeline(load("laptop", [*overrides, f"train.seed={seed}"]), Runner.kfp, work / "runs")
        answers = answers_of(folder, [*photographs, *held_out])
        asked, portraits = answers[: len(photographs)], answers[len(photographs) :]
        right.append(sum(answer["verdict"] == truth_of(path) for path, answer in zip(photographs, asked, strict=True)))
        accepted.append(sum(answer["verdict"] == "live" for answer in portraits) / len(portraits))
        slices = read_json(folder / METRICS_FILE)["slices"]
        line = {
            "seed": seed,
            "photographs": {path.name: short(answer) for path, answer in zip(photographs, asked, strict=True)},
            "portraits accepted": round(accepted[-1], 4),
            "no verdict": sum(answer["verdict"] is None for answer in portraits),
            "staged bona fide accepted": {n: 1 - slices[n]["bpcer"]["value"] for n in ("source_test", "target")},
            "auc": {n: slices[n]["auc"]["value"] for n in ("source_test", "target")},
        }
        print(json.dumps(line), flush=True)
    bars = [figure("portraits.accepted, least", min(accepted), "", bar=0.95, bar_is="value >=")]
    if photographs:
        bars.append(
            figure("portraits.photographs right, least", min(right), "", bar=len(photographs), bar_is="value >=")
        )
    return 0 if all(bars) else 1


def test_portraits(faces: Path) -> list[Path]:
    """The portraits whose subjects are in no training and no development split of the demo's world."""
    from ifas.simulator.cast import portrait_files
    from ifas.simulator.plan import split_subjects

    files = portrait_files(faces)
    return [files[subject] for subject in split_subjects(len(files), SEED)["test"]]


def answers_of(folder: Path, images: list[Path]) -> list[dict[str, Any]]:
    """What the served Bento of a run says of each image; kept beside the run. No verdict is an answer, too."""
    from ifas.serving.client import ask, serve

    kept = folder / ANSWERS_FILE
    if kept.is_file():
        found: list[dict[str, Any]] = read_json(kept)
        return found

    def answered(url: str, image: Path) -> dict[str, Any]:
        try:
            return dict(ask(url, image))
        except ImageRefused as refused:
            return {"verdict": None, "reason": refused.reason}

    with serve(folder / "bento", log=folder / "serve.log") as url:
        answers = [answered(url, image) for image in images]
    write_json(kept, answers)
    return answers


def truth_of(photograph: Path) -> str:
    """The verdict that is right for a photograph, by its name."""
    return "live" if "live" in photograph.stem.split("_") else "spoof"


def short(answer: dict[str, Any]) -> str:
    """Verdict, score and the attack named."""
    if answer["verdict"] is None:
        return f"no verdict ({answer['reason']})"
    named = f" {answer['spoof_type']}" if answer["verdict"] == "spoof" else ""
    return f"{answer['verdict']}{named} {answer['score']:.3f}"


if __name__ == "__main__":
    sys.exit(main())
