"""Runs everything that is missing, each in a process of its own, a few at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from benchmarks.learning.prepare import captions_folder, world_folder
from benchmarks.learning.settings import Single, Study, config_of
from benchmarks.learning.single import RESULT_FILE, run_folder
from ifas.core.environment import prepare
from ifas.core.errors import TrainingError
from ifas.model.sources import resolve

#: A line for a person: what was done.
Say = Callable[[str], None]


def missing(work: Path, study: Study, wanted: Iterable[Single]) -> list[Single]:
    """Runs without a result."""
    return [one for one in wanted if not (run_folder(work, study, one) / RESULT_FILE).is_file()]


def run_all(work: Path, study: Study, wanted: list[Single], jobs: int, say: Say) -> None:
    """Worlds, then captions, then runs. What is there is kept; a run that fails stops what has not begun.

    Raises:
        TrainingError: a process failed; names its log.
    """
    todo = missing(work, study, wanted)
    for source in {config_of(study, one).model.vision.source for one in todo}:
        resolve(source)  # converts packaged weights once, before several processes would
    for seed in sorted({one.seed for one in todo}):
        if not (world_folder(work, seed).parent / "general").is_dir():
            _in_turn([[str(seed), "--jobs", str(jobs)]], work, study, 1, "world", say)
    pairs = sorted({(one.seed, one.target) for one in todo})
    captions = [[str(s), t] for s, t in pairs if not captions_folder(work, s, t).is_dir()]
    _in_turn(captions, work, study, jobs, "captions", say)
    _in_turn([[str(one.seed), one.target, one.arm] for one in todo], work, study, jobs, "run", say)


def _in_turn(calls: list[list[str]], work: Path, study: Study, jobs: int, what: str, say: Say) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        waiting = {pool.submit(_call, work, study, call, what): call for call in calls}
        for done, future in enumerate(as_completed(waiting), start=1):
            try:
                seconds = future.result()
            except TrainingError:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
            left = (time.monotonic() - began) / done * (len(calls) - done)
            name = " ".join(waiting[future])
            say(f"{what} {done}/{len(calls)}: {name}, {seconds:.0f} s; about {left / 60:.0f} min left of this stage")


def _call(work: Path, study: Study, arguments: list[str], what: str) -> float:
    log = work / "logs" / f"{what}-{'-'.join(a for a in arguments if not a.startswith('-'))}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    prepare()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as out:
        sets = [word for change in study.set for word in ("--set", change)]
        command = [sys.executable, "-m", "benchmarks.learning.single", str(work), *arguments, *sets]
        code = subprocess.run(command, env=env, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        last = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()][-1:]
        raise TrainingError(f"{what} {' '.join(arguments)} failed: {' '.join(last)}", f"the whole log is {log}")
    return time.monotonic() - began
