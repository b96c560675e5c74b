"""Ranks as processes of their own, as a launcher starts them, and ways to kill one.

Each is forked from a server that has imported `preloaded` and does nothing else: the imports are most of a start.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import resource
import signal
import socket
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

HERE = Path(__file__).parent
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["preloaded"])


def start(job: object, world_size: int, kill: str = "", rank: int = 0) -> list[BaseProcess]:
    """Starts all ranks of a job.

    Args:
        kill: what happens to the rank `rank`: `step:N` kills it before that step, `save:N` when it has written its part
            of the checkpoint after it; `memory:N` leaves it hardly any memory from then on.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = job.run.parent / f"{job.run.name}.job"  # type: ignore[attr-defined]
    file.write_bytes(pickle.dumps(job))
    ranks = []
    for number in range(world_size):
        env = {
            **os.environ,
            "RANK": str(number),
            "WORLD_SIZE": str(world_size),
            "LOCAL_RANK": str(number),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        log = job.run.parent / f"{job.run.name}.{number}.log"  # type: ignore[attr-defined]
        arguments = (file, log, env, kill if number == rank else "")
        ranks.append(FORKED.Process(target=one_rank, args=arguments, daemon=True))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(HERE)  # where the server, which the first start of all starts, finds `preloaded`
    try:
        for process in ranks:
            process.start()
    finally:
        os.environ.pop("PYTHONPATH")
        os.environ.update({"PYTHONPATH": before} if before is not None else {})
    return ranks


def finish(ranks: list[BaseProcess], timeout: float = 600) -> list[int | None]:
    """Waits until all have ended; where one died, the others are killed, as a launcher does. Exit codes."""
    deadline = time.monotonic() + timeout
    while any(r.is_alive() for r in ranks):
        if any(r.exitcode not in (None, 0) for r in ranks) or time.monotonic() > deadline:
            for r in ranks:
                r.kill()
        time.sleep(0.05)
    return [r.exitcode for r in ranks]


def train(job: object, world_size: int, kill: str = "", rank: int = 0) -> list[int | None]:
    """Runs a job until all its ranks have ended."""
    return finish(start(job, world_size, kill, rank))


def one_rank(file: Path, log: Path, env: dict[str, str], kill: str) -> None:
    """One rank, in its process."""
    with log.open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.environ.clear()
    os.environ.update(env)
    assert "preloaded" in sys.modules, "the server has not imported it"
    from ifas.core.errors import IfasError
    from ifas.training.loop import run

    _arm(kill)
    notice = Path(f"{file}.notice")
    try:
        job = pickle.loads(file.read_bytes())
        print(run(job, notice=lambda: notice.exists() and notice.read_text() == env["RANK"]), flush=True)
    except IfasError as error:
        print(error, flush=True)
        sys.exit(error.exit_code)


def _arm(kill: str) -> None:
    kind, _, at = kill.partition(":")
    if kind == "save":
        from ifas.training.engine import Engine

        save = Engine.save

        def dying(self: Engine, folder: Path) -> None:
            save(self, folder)
            if f"{int(at):08d}" in str(folder):
                os.kill(os.getpid(), signal.SIGKILL)

        Engine.save = dying  # type: ignore[method-assign]
    elif kind in ("step", "memory"):
        from ifas.training import loop

        take = loop.take

        def dying_take(engine: object, step: int, *args: object, **kwargs: object) -> object:
            if step == int(at) and kind == "step":
                os.kill(os.getpid(), signal.SIGKILL)
            if step == int(at):
                ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free already would be used again
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + 2**21, used + 2**21))
            return take(engine, step, *args, **kwargs)  # type: ignore[arg-type]

        loop.take = dying_take  # type: ignore[assignment]
