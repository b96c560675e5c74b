"""Ranks as processes of their own, as a launcher starts them, and ways to kill one.

As a script it is one rank: `python ranks.py JOB`, a pickled `Job`, with RANK and WORLD_SIZE in the environment.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent

#: Environment of a rank that something happens to: `step:N` kills it before that step, `save:N` when it has written
#: its part of the checkpoint after it; `memory:N` leaves it hardly any memory from then on.
KILL = "TEST_KILL"


def start(job: object, world_size: int, kill: str = "", rank: int = 0) -> list[subprocess.Popen[bytes]]:
    """Starts all ranks of a job; `kill` says how the rank `rank` dies."""
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
            "PYTHONPATH": f"{HERE}:{HERE.parents[2]}",
            **({KILL: kill} if number == rank else {}),
        }
        log = (job.run.parent / f"{job.run.name}.{number}.log").open("ab")  # type: ignore[attr-defined]
        ranks.append(subprocess.Popen([sys.executable, __file__, str(file)], env=env, stdout=log, stderr=log))
    return ranks


def finish(ranks: list[subprocess.Popen[bytes]], timeout: float = 600) -> list[int]:
    """Waits until all have ended; where one died, the others are killed, as a launcher does. Exit codes."""
    deadline = time.monotonic() + timeout
    while any(r.poll() is None for r in ranks):
        if any(r.poll() not in (None, 0) for r in ranks) or time.monotonic() > deadline:
            for r in ranks:
                r.kill()
        time.sleep(0.05)
    return [r.wait() for r in ranks]


def train(job: object, world_size: int, kill: str = "", rank: int = 0) -> list[int]:
    """Runs a job to its end, or to its death."""
    return finish(start(job, world_size, kill, rank))


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


def main() -> None:
    from ifas.core.errors import IfasError
    from ifas.training.loop import run

    job = pickle.loads(Path(sys.argv[1]).read_bytes())
    _arm(os.environ.get(KILL, ""))
    notice = Path(f"{sys.argv[1]}.notice")
    try:
        print(run(job, notice=lambda: notice.exists() and notice.read_text() == os.environ["RANK"]), flush=True)
    except IfasError as error:
        print(error, flush=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
