"""The most memory that a step had at once on one machine: on this one, or as its workers tell."""

from __future__ import annotations

import os
import resource
from pathlib import Path

CGROUP_PEAK = Path("/sys/fs/cgroup/memory.peak")

_told = [0.0]


def here() -> float:
    """GiB: of this pod; outside of a pod, of this process or the largest of its ended children."""
    if os.environ.get("KFP_RUN_ID") or os.environ.get("KUBERNETES_SERVICE_HOST"):
        try:
            return int(CGROUP_PEAK.read_text()) / 2**30
        except (OSError, ValueError):
            pass  # an older kernel, or cgroups of version 1
    # In KiB.
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 2**20


def told(gib: float) -> None:
    """A worker tells its `here`."""
    _told[0] = max(_told[0], gib)


def forget() -> None:
    """A step begins: what workers told before was of another."""
    _told[0] = 0.0


def highest() -> float:
    """GiB: the largest of `here` and of what the workers told since `forget`. One that was killed told nothing."""
    return max(here(), *_told)
