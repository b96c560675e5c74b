"""Start-up time of `import ifas` and the command line. The best of several runs: other load only makes them slower."""

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.figure import figure

TRIES = 7


def best(command: list[str]) -> float:
    """Seconds of the fastest of `TRIES` runs, after one that fills the file cache."""
    seconds = []
    for _ in range(TRIES + 1):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:])


def main() -> int:
    """Prints the figures; 1 when a bar is missed."""
    python = best([sys.executable, "-c", "pass"])
    ok = figure("import ifas", best([sys.executable, "-c", "import ifas"]), "s", baseline=python, bar=0.5)
    ifas = str(Path(sys.executable).with_name("ifas"))
    ok &= figure("ifas --help", best([ifas, "--help"]), "s", baseline=python, bar=0.7)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
