"""Speed of the capture simulator: CPU seconds per image on one core, per kind, and the start-up."""

import sys
import time

from benchmarks.figure import figure

BAR = 0.4  # seconds an image
PER_KIND = 12


def main() -> int:
    """Times import and compilation, then images of each kind of the default plan; 1 when a bar is missed."""
    started = time.monotonic()
    from ifas.simulator.cast import RenderedCast
    from ifas.simulator.domains import DOMAINS, SOURCE_DOMAINS
    from ifas.simulator.plan import KINDS, make_plan
    from ifas.simulator.staging import stage

    targets = tuple(d for d in DOMAINS if d not in SOURCE_DOMAINS)
    jobs = make_plan(44, 7, SOURCE_DOMAINS, targets)
    cast = RenderedCast(7)
    for kind in KINDS:
        stage(cast, next(j for j in jobs if j.kind == kind), 7)
    ok = figure("render.start_up", time.monotonic() - started, "s")
    total = 0.0
    for kind in KINDS:
        some = [j for j in jobs if j.kind == kind][1 : PER_KIND + 1]
        before = time.process_time()
        for job in some:
            stage(cast, job, 7)
        seconds = (time.process_time() - before) / len(some)
        total += seconds * sum(j.kind == kind for j in jobs)
        ok &= figure(f"render.{kind}", seconds, "s/image")
    ok &= figure("render.mean", total / len(jobs), "s/image", bar=BAR)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
