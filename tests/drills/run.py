"""`make drills`: real steps and services are disturbed, and must then end with the same artifacts.

Each line of the table is something that was done. A line that fails is told in full; the others are played as well.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ifas.core.environment import prepare
from tests.drills import table

#: Those that put drills into the table, in its order.
MODULES = ("killed", "away", "disk", "restarted")
PAGE = Path(__file__).parents[2] / "docs" / "drills.md"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder of this run; what killed processes leave in the temporary folder goes with it."""
    with tempfile.TemporaryDirectory(prefix="ifas-drills-", ignore_cleanup_errors=True) as made:
        root = Path(made).resolve()
        (root / "tmp").mkdir()
        with patch.dict(os.environ, {"TMPDIR": str(root / "tmp"), "IFAS_HOME": str(root / "harness")}):
            yield root


def known() -> list[table.Drill]:
    """All drills, in the order of the table."""
    for module in MODULES:
        importlib.import_module(f"tests.drills.{module}")
    return table.DRILLS


def after(drills: list[table.Drill], told: list[dict[str, Any]]) -> list[table.Drill]:
    """The drills, those that ended well in an earlier outcome with what was said of them then."""
    well = {one["name"]: one for one in told if one["state"] == "ok"}
    return [replace(one, **well[one.name]) if one.name in well else one for one in drills]


def main(words: list[str] | None = None) -> int:
    """Plays the drills; 1 where one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.run", description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="name the drills, play none")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this drill, or all that begin so")
    parser.add_argument("--kills", type=int, default=6, help="most kills of one step; of a long one two thirds")
    parser.add_argument("--away", type=float, default=60, help="seconds for which the store is away")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcome there, too")
    parser.add_argument("--after", type=Path, metavar="FILE", help="what ended well there is not played again")
    parser.add_argument("--page", type=Path, default=PAGE, help="where all drills together are told")
    given = parser.parse_args(words)
    prepare()
    drills = [one for one in known() if not given.only or any(one.name.startswith(name) for name in given.only)]
    if given.list:
        print("\n".join(f"{one.name:<28} {one.about}" for one in drills))
        return 0
    if not drills:
        parser.error("--only: no drill has that name; --list names them")
    if given.kills < 1 or given.away < 0:
        parser.error("--kills is at least 1, --away at least 0")
    # Before the first drill, not after the last.
    for file in filter(None, (given.json, None if given.only else given.page)):
        if not file.absolute().parent.is_dir():
            parser.error(f"--json, --page: {file} can't be written, {file.absolute().parent} is no folder")
    try:
        drills = after(drills, json.loads(given.after.read_text()) if given.after else [])
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"--after {given.after} is not what --json wrote: {error}")
    with scratch() as root, table.world(root, kills=given.kills, away=given.away) as world:
        played = table.play(drills, world)
    print(table.table(played))
    if given.json:
        told = [{name: value for name, value in asdict(one).items() if name != "play"} for one in played]
        given.json.write_text(json.dumps(told, indent=2) + "\n")
    if not given.only:
        command = f"make drills MORE='--kills {given.kills} --away {given.away:g}'"
        earlier = sum(one.state == "ok" for one in drills)
        given.page.write_text(table.page(played, command, date.today(), earlier))
    return int(any(one.state == "FAILED" for one in played))


if __name__ == "__main__":
    # So that servers and folders are gone, too, when it is ended.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    sys.exit(main())
