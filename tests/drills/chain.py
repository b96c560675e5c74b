"""The chain of steps that a drill disturbs: real `ifas step` processes, and what they make when nothing happens."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ifas.core.config import load
from ifas.core.files import read_json, sha256_file, sha256_json, sha256_tree
from ifas.core.records import Lineage
from ifas.promotion.ledger import Ledger
from ifas.steps.contract import STEPS
from ifas.steps.execute import LINEAGE
from tests import toy_dataset
from tests.drills.effects import Effect, Journal

IFAS = str(Path(sys.executable).with_name("ifas"))
#: Files of an output that hold times, and so differ between two undisturbed runs.
TIMED = {"model": ("training.json", "curve.jsonl")}
#: Seconds that a step may take on a busy machine.
PATIENCE = 600.0


class Failed(Exception):
    """A drill did not end as it must; the message is all that is known."""


class Skipped(Exception):
    """This machine can't play the drill; the message says why."""


@dataclass(frozen=True)
class Ended:
    """A process that has ended. `text` is all that it printed."""

    command: list[str]
    code: int
    text: str

    def require(self, *codes: int) -> Ended:
        """This, if it ended so. Raises Failed."""
        if self.code not in codes:
            raise Failed(f"$ {' '.join(self.command)}\n{self.text[-4000:]}\nexit code {self.code}, not {codes}")
        return self


@dataclass
class Place:
    """Folders of one try: its outputs, its home, its ledger.

    Args:
        config: file with the configuration.
        ledger: URL; empty: a SQLite file of its own.
        before: words in front of each command.
        environment: more of it, such as the credentials of a store.
        seen: where this process sees `root`, if that is on a disk of the commands alone.
        logs: folder for what the commands print; by default `root`.
    """

    root: Path
    config: Path
    ledger: str = ""
    before: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    seen: Path | None = None
    logs: Path | None = None

    def __post_init__(self) -> None:
        for folder in (self.out, self.home, self.ledger_file.parent):
            self.look(folder).mkdir(parents=True, exist_ok=True)
        self.ledger = self.ledger or f"sqlite:///{self.ledger_file}"

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def ledger_file(self) -> Path:
        return self.root / "ledger" / "ledger.db"

    @property
    def roots(self) -> dict[str, Path]:
        """Where a change is a side effect."""
        return {"output": self.out, "home": self.home, "ledger": self.ledger_file.parent}

    def look(self, path: Path) -> Path:
        """Where this process sees what the commands call `path`."""
        return (self.seen or self.root) / path.relative_to(self.root)

    def ledger_to_read(self) -> str:
        """URL by which this process reaches the ledger."""
        if not self.seen or not self.logs:
            return self.ledger
        # SQLite follows the link to the other disk, where the path means nothing.
        return f"sqlite:///{shutil.copy(self.look(self.ledger_file), self.logs / 'ledger.db')}"

    def left_over(self) -> list[str]:
        """See `left_over`."""
        return left_over(*(self.look(folder) for folder in (self.out, self.home, self.ledger_file.parent)))

    def start(self, words: list[str], journal: Journal | None = None) -> Started:
        """Starts `ifas` here."""
        # Names of the harness's own run say nothing here.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("IFAS_")}
        env = {**kept, "IFAS_HOME": str(self.home), "IFAS_LEDGER": self.ledger, "HF_HUB_OFFLINE": "1"}
        env |= {**self.environment, **(journal.environment if journal else {})}
        command, logs = [*self.before, IFAS, *words], self.logs or self.root
        log = logs / f"log-{len(list(logs.glob('log-*')))}"
        with log.open("w") as file:
            process = subprocess.Popen(command, env=env, cwd=logs, stdout=file, stderr=file)
        return Started(command, log, process)

    def run(self, words: list[str], journal: Journal | None = None) -> Ended:
        """Runs `ifas` here to its end."""
        return self.start(words, journal).ended()

    def step(
        self, name: str, inputs: Mapping[str, Path | str], outputs: Mapping[str, str] | None = None, *more: str
    ) -> list[str]:
        """Words of a step; its outputs lie below `out` unless others are given."""
        words = ["step", name, "--config", str(self.config), "--run-id", "drill", *more]
        for one, path in inputs.items():
            words += ["--input", f"{one}={path}"]
        made = {one: str(self.out / one) for one in (*STEPS[name].outputs, LINEAGE)}
        for one, place in (outputs or made).items():
            words += ["--output", f"{one}={place}"]
        return words


@dataclass
class Started:
    """A process of `ifas`."""

    command: list[str]
    log: Path
    process: subprocess.Popen[bytes]

    def ended(self, seconds: float = PATIENCE) -> Ended:
        """Waits for its end. Raises Failed if that does not come."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failed(f"$ {' '.join(self.command)}\n{self.text()}\nstill runs after {seconds:.0f} s") from None
        return Ended(self.command, code, self.text())

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def held(self, journal: Journal, seconds: float = PATIENCE) -> None:
        """Waits until it is held. Raises Failed if it ends before."""
        until = time.monotonic() + seconds
        while not journal.held:
            if self.process.poll() is not None or time.monotonic() > until:
                raise Failed(f"$ {' '.join(self.command)}\n{self.text()}\nnothing matched {journal.hold!r}")
            time.sleep(0.05)


@dataclass(frozen=True)
class Undisturbed:
    """A step to which nothing happened: its folder, the content of its output, its side effects."""

    out: Path
    made: dict[str, str]
    effects: list[Effect]


class Chain:
    """A registry, and the steps of the profile `tiny` on it, played as far as a drill needs them."""

    def __init__(self, root: Path) -> None:
        from ifas.data.pack import pack
        from ifas.data.registry import Registry

        self.root = root
        pack("folder", toy_dataset.make(root / "raw"), root / "packed", name="toy")
        self.registry = Registry.init(root / "registry")
        self.registry.publish(root / "packed")
        self.config = self._config("config")
        self._done: dict[str, Undisturbed] = {}
        self._place = Place(root / "undisturbed", self.config)
        self._tries = 0

    def _config(self, name: str, *settings: str) -> Path:
        config = load(
            "tiny", [f"ingest.registry={self.registry.path}", "ingest.dataset=toy", "ingest.revision=v1", *settings]
        )
        file = self.root / f"{name}.yaml"
        file.write_text(json.dumps(config.model_dump(mode="json")))
        return file

    def place(self, *settings: str, ledger: str = "", environment: Mapping[str, str] | None = None) -> Place:
        """Folders for one try; nothing is in them."""
        self._tries += 1
        name = f"try-{self._tries}"
        config = self._config(name, *settings) if settings else self.config
        return Place(self.root / name, config, ledger, environment=dict(environment or {}))

    def inputs(self, step: str) -> dict[str, Path]:
        """What the undisturbed steps before made for this one."""
        made: dict[str, Path] = {}
        for name in list(STEPS)[: list(STEPS).index(step)]:
            out = self.undisturbed(name).out
            made |= {one: out / one for one in (*STEPS[name].outputs, LINEAGE)}
        return {one: path for one, path in made.items() if one in (*STEPS[step].inputs, LINEAGE)}

    def undisturbed(self, step: str) -> Undisturbed:
        """The step, and those before it, run once and counted."""
        if step not in self._done:
            inputs = self.inputs(step)
            place = Place(self.root / "undisturbed" / step, self.config, self._place.ledger)
            journal = Journal(place.root / "journal", {**place.roots, **self.also()})
            place.run(place.step(step, inputs), journal).require(0)
            if not journal.effects():
                raise Failed(f"no side effect of {step} was seen: the recorder is not loaded")
            # As it is after this step, for the tries of the next one.
            if self._place.ledger_file.exists():
                shutil.copy(self._place.ledger_file, place.root / "ledger-after.db")
            self._done[step] = Undisturbed(place.out, content(place.out), journal.effects())
        return self._done[step]

    def also(self) -> dict[str, Path]:
        """What every step shares: the undisturbed ledger, the registry."""
        return {"ledger": self._place.ledger_file.parent, "registry": Path(self.registry.path)}

    def ledger_before(self, step: str) -> Path | None:
        """The SQLite ledger as the steps before left it; None where there was none."""
        names = list(STEPS)
        before = names[: names.index(step)]
        for name in before:
            self.undisturbed(name)
        found = [self.root / "undisturbed" / name / "ledger-after.db" for name in before]
        return next((file for file in reversed(found) if file.exists()), None)

    def ledger_growth(self, step: str) -> tuple[int, int]:
        """Bytes of the SQLite ledger before the step, and what it adds."""
        before, after = self.ledger_before(step), self.root / "undisturbed" / step / "ledger-after.db"
        self.undisturbed(step)
        sizes = [file.stat().st_size if file and file.exists() else 0 for file in (before, after)]
        return sizes[0], max(0, sizes[1] - sizes[0])

    def candidate(self) -> str:
        """Id of the one candidate that the chain makes."""
        return str(read_json(self.undisturbed("gate").out / "candidate")["candidate"])

    def faults(self, step: str, place: Place, *, out: Path | None = None) -> list[str]:
        """What is not as it is when nothing happens; empty where all is.

        Args:
            out: folder of the outputs, if they are elsewhere.
        """
        out, base = out or place.look(place.out), self.undisturbed(step)
        found = [*different(base.made, content(out)), *place.left_over()]
        there, wanted = {one.name for one in out.iterdir()}, {one.name for one in base.out.iterdir()}
        if there != wanted:
            return [*found, f"its outputs are {sorted(there)}, not {sorted(wanted)}"]
        lineage, undisturbed = (Lineage.model_validate(read_json(folder / LINEAGE)) for folder in (out, base.out))
        lineage.verify()
        steps = [[entry.step for entry in one.entries] for one in (lineage, undisturbed)]
        if steps[0] != steps[1]:
            found.append(f"its lineage has the steps {steps[0]}, not {steps[1]}")
        last = lineage.entries[-1]
        if dict(last.outputs) != {one: sha256_tree(out / one) for one in STEPS[step].outputs}:
            found.append("its lineage has other hashes than its outputs")
        if dict(last.inputs) != dict(undisturbed.entries[-1].inputs):
            found.append("its lineage has other inputs")
        if step in ("gate", "approve"):
            found += ledger_faults(place.ledger_to_read(), self.candidate(), approved=step == "approve")
        return found


def ledger_faults(url: str, candidate: str, *, approved: bool) -> list[str]:
    """What is wrong with a ledger in which one candidate was recorded, and approved."""
    ledger = Ledger(url)
    try:
        ledger.verify()
        candidates = [one.id for one in ledger.list()]
        if candidates != [candidate]:
            return [f"the ledger has the candidates {candidates}, not {candidate} alone"]
        decisions = [one.to_state for one in ledger.checked(candidate)[1]]
    finally:
        ledger.close()
    wanted = ["pending", "approved"] if approved else ["pending"]
    return [] if decisions == wanted else [f"its decisions are {decisions}, not {wanted}"]


def content(out: Path) -> dict[str, str]:
    """Each file of a step's outputs -> SHA-256, without its lineage and what holds times."""
    found = {}
    for file in sorted(path for path in out.rglob("*") if path.is_file()):
        name = file.relative_to(out).as_posix()
        output, _, inside = name.partition("/")
        if output == LINEAGE or inside in TIMED.get(output, ()):
            continue
        if output == "approval":
            record = {key: value for key, value in read_json(file).items() if key != "at"}
            found[name] = sha256_json(record)
        else:
            found[name] = sha256_file(file)
    return found


def different(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What two contents differ in."""
    changed = sorted(name for name in {**wanted, **found} if wanted.get(name) != found.get(name))
    return [f"another content: {', '.join(changed[:5])}{' ...' if len(changed) > 5 else ''}"] if changed else []


def left_over(*folders: Path) -> list[str]:
    """Scratch that a step should have removed."""
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            scratch = path.name.endswith((".part", ".old", ".new", "-journal"))
            # Of a step's work only the locks stay.
            work = inside.parts[0] == "work" and len(inside.parts) == 3 and path.suffix != ".lock"
            if scratch or work:
                found.append(str(path))
    return [f"left over: {', '.join(found[:5])}{' ...' if len(found) > 5 else ''}"] if found else []
