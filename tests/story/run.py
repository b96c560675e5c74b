"""`make demo-new-species`: a new attack arrives, is learned and shipped; the same, poisoned, is stopped."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from ifas.core.environment import prepare
from ifas.core.files import read_json, write_json
from tests.drills.chain import Failed
from tests.story import acts, figures, page
from tests.story.stage import Stage

ROOT = Path("build/new-species")
PAGE = Path(__file__).parents[2] / "docs" / "new-species.md"
STORY = "story.json"
ACTS: tuple[acts.Act, ...] = (
    acts.world, acts.champion, acts.quarantine, acts.release, acts.retrain, acts.review, acts.package, acts.answers,
    acts.poison, acts.careless, acts.poisoned, acts.refused,
)  # fmt: skip


def play(root: Path, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Plays every act that was not played in this folder yet. Act -> what it told, and its `seconds`.

    Args:
        seed: of the trainings.
    """
    prepare()
    stage, file = Stage(root, seed), root / STORY
    told: dict[str, dict[str, Any]] = dict(read_json(file)) if file.exists() else {}
    write_json(file, told)
    for act in ACTS:
        name = act.__name__
        if name not in told:
            print(f"{name:<11}{(act.__doc__ or '').splitlines()[0]}", flush=True)
            begin = time.monotonic()
            told[name] = act(stage, told)
            told[name]["seconds"] = time.monotonic() - begin
            write_json(file, told)
            for line in [*figures.lines(name, told[name]), f"{told[name]['seconds']:.0f} s"]:
                print(f"{'':<11}{line}", flush=True)
    return told


def clear(root: Path) -> None:
    """Removes an earlier story. Raises Failed where the folder holds anything else."""
    if root.exists() and any(root.iterdir()):
        if not (root / STORY).exists():
            raise Failed(f"{root} holds no story: name a new or an empty folder with --root")
        shutil.rmtree(root)


def main(words: list[str] | None = None) -> int:
    """Plays the story and prints it; 1 where it does not go as told."""
    parser = argparse.ArgumentParser(prog="python -m tests.story.run", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the work")
    parser.add_argument("--continue", dest="go_on", action="store_true", help="keep the acts that were played")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings")
    parser.add_argument("--write-docs", action="store_true", help=f"write {PAGE} and its pictures, too")
    given = parser.parse_args(words)
    try:
        if not given.go_on:
            clear(given.root)
        told = play(given.root, given.seed)
    except Failed as failed:
        print(failed, file=sys.stderr)
        return 1
    if given.write_docs:
        page.write(told, given.root / "pictures", PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
