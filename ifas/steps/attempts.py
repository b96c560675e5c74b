"""How the tries of a step in a pipeline run failed, and what it used, kept in `cluster.storage`: pods forget.

KFP repeats whatever fails, and can't see an exit code. So a try looks here first: after its user's own error, or when
the retries for the infrastructure are spent, it fails again at once. A pod that was taken away leaves no record: it
costs no retry of ours.
"""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ifas.core import storage
from ifas.core.config import ClusterConfig
from ifas.core.errors import DataError, IfasError
from ifas.core.files import read_json, write_json
from ifas.core.progress import emit
from ifas.core.records import Usage
from ifas.core.unforeseen import named
from ifas.core.urls import clean
from ifas.steps.contract import STEPS
from ifas.steps.usage import price_of_try, reserved_by

#: Of the traceback of an error that nobody foresaw.
LINES = 20


class Failure(BaseModel):
    """One try that failed. `repeat`: the same may succeed another time. `price`: at most, by `cluster.prices`."""

    model_config = ConfigDict(extra="forbid")

    step: str
    what: str
    fix: str
    code: int
    repeat: bool
    last: str = ""
    price: float = 0

    def error(self) -> IfasError:
        """The error as it was raised."""
        found = IfasError(self.what, self.fix)
        found.exit_code, found.repeat = self.code, self.repeat
        return found


@contextmanager
def counted(step: str, cluster: ClusterConfig, run_id: str) -> Iterator[None]:
    """Inside the block a try of the step runs, unless earlier ones rule it out.

    Raises:
        IfasError: the last try's error, where another one makes no sense; else what is raised inside.
    """
    place = _place(cluster, run_id)
    earlier = failures(cluster, run_id, step)
    if earlier and not (earlier[-1].repeat and len(earlier) <= cluster.retries):
        # KFP's Retry keeps the run's id, and tells no pod that a person asked for it.
        new = "submit a new run: a retry of this one ends here"
        last = earlier[-1].model_copy(update={"fix": f"{earlier[-1].fix}; then {new}" if earlier[-1].fix else new})
        emit("note", step, text=f"not tried again: {len(earlier)} of {1 + cluster.retries} tries have failed")
        emit("failed", step, what=last.what, fix=last.fix, code=last.code)
        raise last.error()
    begin = time.monotonic()
    try:
        yield
    except Exception as error:
        if place:
            price = price_of_try(step, cluster, time.monotonic() - begin)
            now = _failure(step, error).model_copy(update={"price": price})
            _keep(f"{place}/{step}.json", [one.model_dump() for one in (*earlier, now)], step)
        raise
    if earlier:
        # It did not end the run, and whoever tells how the run ended must not think so.
        with suppress(DataError):
            storage.delete(f"{place}/{step}.json")


def failures(cluster: ClusterConfig, run_id: str, step: str) -> list[Failure]:
    """The failed tries of a step, oldest first; none where nothing is kept or the store is away."""
    place = _place(cluster, run_id)
    try:
        return [Failure.model_validate(one) for one in _kept(f"{place}/{step}.json") or []] if place else []
    except ValueError:
        return []


def keep_usage(step: str, cluster: ClusterConfig, run_id: str, usage: Usage) -> None:
    """Keeps what a step of a pipeline run used, for whoever tells how the run ended; elsewhere nothing is kept."""
    place = _place(cluster, run_id)
    if place and reserved_by(step, cluster) is not None:
        _keep(f"{place}/{step}.usage.json", usage.model_dump(), step)


def usages(cluster: ClusterConfig, run_id: str) -> dict[str, Usage]:
    """What each step of a run used that succeeded, in the order of the DAG; see `keep_usage`."""
    found = {step: _kept(f"{_place(cluster, run_id)}/{step}.usage.json") for step in STEPS} if cluster.store else {}
    return {step: Usage.model_validate(one) for step, one in found.items() if one is not None}


def spent(cluster: ClusterConfig, run_id: str, step: str) -> float:
    """What the failed tries of a step cost."""
    return sum(one.price for one in failures(cluster, run_id, step))


def _failure(step: str, error: Exception) -> Failure:
    known = named(error)
    if known is None:
        last = "".join(traceback.format_exception(error)).splitlines()[-LINES:]
        return Failure(
            step=step,
            what=clean(f"{type(error).__name__}: {error}"),
            fix="this is a bug of ifas: report it with the log",
            code=1,
            repeat=False,
            last=clean("\n".join(last)),
        )
    return Failure(step=step, what=known.what, fix=known.fix, code=known.exit_code, repeat=known.repeat)


def _keep(uri: str, found: Any, step: str) -> None:
    with tempfile.TemporaryDirectory(prefix="ifas-tries-") as scratch:
        write_json(Path(scratch) / "kept", found)
        try:
            storage.store(Path(scratch) / "kept", uri)
        except DataError as error:  # the step's own end says more
            emit("note", step, text=f"what the run's end would tell of this step is not kept: {error.what}")


def _kept(uri: str) -> Any:
    """What is kept there; None where nothing is, or the store is away."""
    with tempfile.TemporaryDirectory(prefix="ifas-tries-") as scratch:
        try:
            return read_json(storage.fetch(uri, Path(scratch) / "kept"))
        except (DataError, ValueError):
            return None


def _place(cluster: ClusterConfig, run_id: str) -> str:
    return f"{cluster.store}/runs/{run_id}" if cluster.store else ""
