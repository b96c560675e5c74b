"""What a run used, step by step."""

from __future__ import annotations

from typing import Any

from ifas.core.records import Lineage


def of(lineage: Lineage | None) -> dict[str, Any] | None:
    """The cost of each step and of all; None where there is no lineage."""
    if lineage is None:
        return None
    used = [entry.usage for entry in lineage.entries if entry.usage]
    return {
        "entries": lineage.entries,
        "seconds": sum(entry.seconds for entry in lineage.entries),
        "cpu_hours": sum(one.cpu_hours for one in used),
        "gpu_hours": sum(one.gpu_hours for one in used),
        "peak_memory_gib": max((one.peak_memory_gib for one in used), default=0.0),
        "price": sum(one.price for one in used),
        "currency": used[-1].currency if used else "",
    }
