"""Side effects of a command: counted in one run, killed or held at in another."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RECORDER = Path(__file__).parent / "recorder"
#: Kinds that decide what is left: a result put in its place, a row of a database, an object of a store, a request.
TELLING = ("put", "commit", "store", "request")


@dataclass(frozen=True)
class Effect:
    """One side effect, in the order in which they were done."""

    number: int
    kind: str
    what: str

    def __str__(self) -> str:
        # Names that differ from run to run say nothing.
        plain = re.sub(r"\.([^/]+)\.[0-9a-f]{8}\.part", r"\1.part", self.what)
        return f"{self.kind} {re.sub(r'[0-9a-f]{16,}', '*', plain)}"


@dataclass
class Journal:
    """Where the recorder writes, and what it is told.

    Args:
        roots: name -> folder in which a change counts.
        kill: number of the side effect that the process does not live to do; 0: none.
        hold: pattern; the first side effect that it matches waits until `go`.
    """

    path: Path
    roots: Mapping[str, Path]
    kill: int = 0
    hold: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """For the process that is to be recorded."""
        roots = {name: os.path.realpath(folder) for name, folder in self.roots.items()}
        settings = {"journal": str(self.path), "roots": roots, "kill": self.kill, "hold": self.hold}
        path = os.pathsep.join(filter(None, (str(RECORDER), os.environ.get("PYTHONPATH", ""))))
        return {"IFAS_DRILL": json.dumps(settings), "PYTHONPATH": path}

    @property
    def held(self) -> bool:
        """Whether a process waits."""
        return self.path.with_name(f"{self.path.name}.held").exists()

    def go(self) -> None:
        """The one that waits goes on."""
        self.path.with_name(f"{self.path.name}.go").touch()

    def effects(self) -> list[Effect]:
        """What was done so far, or was about to be."""
        lines = self.path.read_text(errors="replace").splitlines() if self.path.exists() else []
        pairs = (line.partition("\t") for line in lines)
        return [Effect(number, kind, what) for number, (kind, _, what) in enumerate(pairs, start=1)]


def sample(effects: Sequence[Effect], kills: int) -> list[Effect]:
    """Those to be killed at: the first, the last, then of the telling kinds, then of all, spread evenly."""
    if len(effects) <= kills:
        return list(effects)
    ends = [effects[0], effects[-1]][:kills]
    telling = [one for one in effects if one.kind in TELLING and one not in ends]
    chosen = [*ends, *_spread(telling, kills - len(ends))]
    left = [one for one in effects if one not in chosen]
    chosen += _spread(left, kills - len(chosen))
    return sorted(chosen, key=lambda one: one.number)


def _spread(effects: Sequence[Effect], wanted: int) -> list[Effect]:
    """So many of them, or all, at even distances; of each rare kind one at least where there is room."""
    if len(effects) <= wanted:
        return list(effects)
    kinds = Counter(one.kind for one in effects)
    rare = [[one for one in effects if one.kind == kind] for kind, _ in kinds.most_common()[1:]]
    chosen = [same[len(same) // 2] for same in rare][:wanted]
    left = [one for one in effects if one not in chosen]
    wanted -= len(chosen)
    return [*chosen, *(left[(2 * place + 1) * len(left) // (2 * wanted)] for place in range(wanted))]
