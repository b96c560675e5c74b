"""`python -m benchmarks.learning --work FOLDER`: the study of docs/results.md, from rendering to the page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.learning.page import write_page
from benchmarks.learning.schedule import missing, run_all
from benchmarks.learning.settings import read_study, singles
from benchmarks.learning.single import RESULT_FILE, run_folder
from ifas.core.errors import IfasError
from ifas.core.files import read_json, write_json

RESULTS_FILE = "results.json"


def main() -> int:
    """Runs what is missing, then writes `results.json` in the work folder, and the page."""
    study = read_study()
    parser = argparse.ArgumentParser(prog="benchmarks.learning", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="pictures, captions, finished runs; kept")
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"), help="the page")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, one thread each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[], help=f"of {study.seeds}, or others")
    parser.add_argument("--targets", nargs="+", default=[], help=f"of {', '.join(study.domains)}")
    parser.add_argument("--arms", nargs="+", default=[], help=f"of {', '.join(study.arms)}")
    parser.add_argument("--set", action="append", default=[], help="section.key=value for all arms, for a quick look")
    parser.add_argument("--dry-run", action="store_true", help="only list the runs")
    args = parser.parse_args()
    study = study.with_changes(args.set)
    try:
        wanted = singles(study, seeds=args.seeds, targets=args.targets, arms=args.arms)
        todo = missing(args.work, study, wanted)
        if args.dry_run:
            for one in wanted:
                print(f"{'to do' if one in todo else 'done '}  {run_folder(args.work, study, one).name}")
            print(f"{len(todo)} of {len(wanted)} runs to do")
            return 0
        args.work.mkdir(parents=True, exist_ok=True)
        run_all(args.work, study, wanted, args.jobs, lambda text: print(text, flush=True))
    except IfasError as error:
        print(error, file=sys.stderr)
        return 1
    results = [read_json(run_folder(args.work, study, one) / RESULT_FILE) for one in wanted]
    write_json(args.work / RESULTS_FILE, results)
    write_page(study, results, args.out)
    print(f"{args.out}, {args.work / RESULTS_FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
