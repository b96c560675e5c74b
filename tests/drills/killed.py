"""Drills: a step, or a whole run, is killed at its side effects."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial

from ifas.core.files import link_tree, read_json
from ifas.core.records import LINEAGE_FILE, Lineage
from ifas.steps.contract import STEPS
from ifas.steps.execute import LINEAGE
from tests.drills.chain import Chain, Failed, Place, ledger_faults
from tests.drills.effects import Effect, Journal, sample
from tests.drills.table import World, drill
from tests.drills.uris import Staged

#: Steps that take long are killed less often than the others, in this share.
LONG, SHARE = ("train", "package"), 2 / 3


class Try:
    """New folders, the words of the command that is killed there, and what is wrong with what its rerun left."""

    def __init__(self, chain: Chain, place: Place, words: list[str], faults: Callable[[], list[str]]) -> None:
        self.place, self.words, self.faults = place, words, faults
        self._roots = {**place.roots, "registry": chain.registry.local()}

    def journal(self, kill: int = 0) -> Journal:
        return Journal(self.place.root / "journal", self._roots, kill=kill)

    def counted(self) -> list[Effect]:
        """Its side effects when nothing happens. Raises Failed where it does not end as it must."""
        journal = self.journal()
        self.place.run(self.words, journal).require(0)
        if found := self.faults():
            raise Failed(f"undisturbed: {'; '.join(found)}")
        return journal.effects()


def killed_at(
    effects: Sequence[Effect], kills: int, fresh: Callable[[], Try], lost: Callable[[Place], None] = lambda _place: None
) -> str:
    """Kills a new process at each of some side effects, and runs the same command again.

    Args:
        effects: of an undisturbed run, or some of them.
        fresh: makes a try.
        lost: takes away what the machine of the killed process takes with it.

    Returns:
        how many of how many.

    Raises:
        Failed: a rerun did not end well, or left something else than the undisturbed run.
    """
    done = ended = 0
    for effect in sample(effects, kills):
        one = fresh()
        journal = one.journal(effect.number)
        first = one.place.run(one.words, journal).require(-9, 0)
        # Where several processes work at once, the last number may not be reached.
        ended += first.code == 0
        done += first.code != 0
        at = f"{'killed' if first.code else 'ended'} before {effect.number}, {(journal.effects() or [effect])[-1]}"
        print(f"   {at}", flush=True)
        lost(one.place)
        try:
            one.place.run(one.words).require(0)
            found = one.faults()
        except Failed as failure:
            raise Failed(f"{failure}\n{at}; the rerun failed") from failure
        if found:
            raise Failed(f"{at}; the rerun left something else: {'; '.join(found)}")
        shutil.rmtree(one.place.root)
    if not done:
        raise Failed(f"no process was killed: {ended} ended before")
    said = f"killed at {done} of {len(effects)} side effects"
    return f"{said} ({ended} more ended before theirs)" if ended else said


def kill_step(world: World, step: str, database: Callable[[], str] | None = None) -> str:
    """A step whose inputs and outputs are on this machine.

    Args:
        database: makes an empty ledger; None: each try has a SQLite file.
    """
    chain = world.chain

    def fresh() -> Try:
        place = chain.place(ledger=database() if database else "")
        before = chain.ledger_before(step)
        if before and database:
            given = Place(place.root / "before", chain.config, place.ledger)
            given.run(given.step("gate", chain.inputs("gate"))).require(0)
        elif before:
            shutil.copy(before, place.ledger_file)
        return Try(chain, place, place.step(step, chain.inputs(step)), lambda: chain.faults(step, place))

    effects = fresh().counted() if database else chain.undisturbed(step).effects
    return killed_at(effects, fewer(world.kills) if step in LONG else world.kills, fresh)


def fewer(kills: int) -> int:
    """Kills of what takes long."""
    return max(1, round(SHARE * kills))


for _name in STEPS:
    drill(f"killed: {_name}", f"`ifas step {_name}` is killed")(partial(kill_step, step=_name))


@drill("killed: gate, PostgreSQL", "the same with a ledger in PostgreSQL")
def gate_on_postgresql(world: World) -> str:
    return kill_step(world, "gate", world.database)


@drill("killed: approve, PostgreSQL", "the same with a ledger in PostgreSQL")
def approve_on_postgresql(world: World) -> str:
    return kill_step(world, "approve", world.database)


@drill("killed: caption, S3", "inputs, outputs and kept results are in a store; the rerun has an empty `IFAS_HOME`")
def caption_in_a_store(world: World) -> str:
    staged = Staged(world, "caption")

    wanted: set[str] = set()

    def fresh() -> Try:
        place, words, outputs = staged.place()

        def faults() -> list[str]:
            there = staged.objects(outputs)
            wanted.update(() if wanted else there)  # the first try is the undisturbed one
            odd = ", ".join(sorted(there ^ wanted)[:5])
            return staged.faults(place, outputs) + ([f"these are in one store only: {odd}"] if odd else [])

        return Try(world.chain, place, words, faults)

    return killed_at(fresh().counted(), world.kills, fresh, lost=lambda place: shutil.rmtree(place.home))


@drill("killed: a whole run", "`ifas run` is killed with the step at work, from `gate` on; what was before is reused")
def whole_run(world: World) -> str:
    chain = world.chain
    chain.undisturbed("evaluate")

    def fresh() -> Try:
        place = chain.place()
        for step in list(STEPS)[:5]:
            link_tree(chain.root / "undisturbed" / step / "home" / "cache" / step, place.home / "cache" / step)
        words = ["run", "--config", str(chain.config), "--runs", str(place.out)]
        return Try(chain, place, words, lambda: run_faults(chain, place))

    effects = fresh().counted()
    # Before, nothing is at stake here: each of those steps has a drill of its own.
    first = next(one.number for one in effects if one.kind == "commit")
    return killed_at(effects[first - 1 :], fewer(world.kills), fresh)


def run_faults(chain: Chain, place: Place) -> list[str]:
    """What is wrong with the newest run of a place, and with its ledger."""
    run = place.out / "latest"
    lineage = Lineage.model_validate(read_json(run / LINEAGE_FILE))
    lineage.verify()
    found = ledger_faults(place.ledger, chain.candidate(), approved=True)
    if (steps := [entry.step for entry in lineage.entries]) != list(STEPS):
        return [*found, f"its lineage has the steps {steps}"]
    before = Lineage.model_validate(read_json(chain.undisturbed("gate").out / LINEAGE)).entries
    for entry, base in zip(lineage.entries, before, strict=False):
        if entry.step == "gate":
            # Its record has the candidate's state, too: approved, where the first run came so far.
            same = {**entry.facts, "state": ""} == {**base.facts, "state": ""}
        else:
            same = dict(entry.outputs) == dict(base.outputs)
        found += [] if same else [f"{entry.step} made something else"]
    # An approval holds its time, so each run has another Bento; its model is the same.
    if lineage.entries[-1].facts["model_sha256"] != before[3].outputs["model"]:
        found.append("the Bento has another model")
    if not (run / "bento" / "package.json").is_file():
        found.append("there is no Bento")
    return found
