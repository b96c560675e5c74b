"""Drills: a disk that is full while a step works on it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ifas.core.errors import MachineError
from ifas.steps.contract import STEPS
from tests.drills.chain import Chain, Failed, Place, Skipped
from tests.drills.table import World, drill

#: Shares of what an undisturbed step leaves on its disk, for which there is room.
SHARES = (0.1, 0.5, 0.9)
ROOM = 2**30
PAGE = 4096


@dataclass(frozen=True)
class Disk:
    """A small disk that only the processes behind `before` see. `seen` is its folder for all others."""

    before: tuple[str, ...]
    folder: Path
    seen: Path

    def resize(self, size: int) -> None:
        subprocess.run([*self.before, "mount", "-o", f"remount,size={size}", str(self.folder)], check=True)


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Disk]:
    """A tmpfs in a mount namespace of its own, gone with the block. Raises Skipped where that is not permitted."""
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        raise Skipped("unshare and nsenter (util-linux) are missing")
    folder.mkdir(parents=True)
    script = f"mount -t tmpfs -o size={size} tmpfs '{folder}' && echo mounted && exec sleep infinity"
    holder = subprocess.Popen(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = holder.stdout.readline() if holder.stdout else ""
        if said.strip() != "mounted":
            raise Skipped(f"a disk can't be mounted here: {said.strip()}")
        before = ("nsenter", "-t", str(holder.pid), "-m")
        yield Disk(before, folder, Path(f"/proc/{holder.pid}/root{folder}"))
    finally:
        holder.kill()
        holder.wait()


def used(*folders: Path) -> int:
    """Bytes on a disk of pages; a file with several names counts once."""
    files = [path.lstat() for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sum(PAGE * -(-size // PAGE) for size in {file.st_ino: file.st_size for file in files}.values())


def full_disk(world: World, step: str, shares: tuple[float, ...] = SHARES) -> str:
    """Runs a step on disks that are too small, and again when there is room."""
    chain = world.chain
    out = chain.undisturbed(step).out
    there, grows = chain.ledger_growth(step)
    needed = used(out, out.with_name("home")) + grows
    told: dict[str, str] = {}
    for share in shares:
        folder = world.folder("disk")
        size = there + max(PAGE, int(share * needed) // PAGE * PAGE)
        with disk(folder / "small", size) as small:
            place = Place(small.folder, chain.config, before=small.before, seen=small.seen, logs=folder)
            told[f"{share:.0%}"] = said = once(chain, step, place, small)
        print(f"   room for {share:.0%} of {needed} bytes: {said}", flush=True)
        shutil.rmtree(folder)
    grouped = {said: [share for share, one in told.items() if one == said] for said in told.values()}
    return "; ".join(f"room for {' or '.join(shares)} of what it leaves: {said}" for said, shares in grouped.items())


def once(chain: Chain, step: str, place: Place, small: Disk) -> str:
    """One step on a disk that is too small, then with room. Raises Failed."""
    before = chain.ledger_before(step)
    if before:
        shutil.copy(before, place.look(place.ledger_file))
    words = place.step(step, chain.inputs(step))
    first = place.run(words).require(0, MachineError.exit_code)
    if first.code:
        if not re.search(r"no space|is full|MiB free", first.text, re.IGNORECASE) or "fix: free" not in first.text:
            raise Failed(f"{first.text[-3000:]}\nthe error does not say that the disk is full, and to free some space")
        out = place.look(place.out)
        if there := sorted(path.name for path in out.iterdir()):
            raise Failed(f"{first.text[-3000:]}\nit left {', '.join(there)} at its outputs")
        small.resize(ROOM)
        place.run(words).require(0)
    if found := chain.faults(step, place):
        raise Failed(f"{'the rerun' if first.code else 'the step'} left something else: {'; '.join(found)}")
    return f"ended with {first.code}, the rerun finished" if first.code else "finished all the same"


for _name in STEPS:
    drill(f"full disk: {_name}", "outputs, `IFAS_HOME` and ledger are on a disk that is too small")(
        partial(full_disk, step=_name, shares=SHARES if _name in ("caption", "gate") else SHARES[1:2])
    )
