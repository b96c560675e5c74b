"""The features of a training on the CPUs of this machine, computed by the driver while Ray starts; see `features`.

A start of Ray is mostly waiting, and the ranks would compute the same with no more cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Event, Thread

from ifas.core import storage
from ifas.core.environment import prepare
from ifas.core.errors import IfasError
from ifas.core.files import locked
from ifas.core.progress import Progress
from ifas.training.job import STARTS_FILE, Job

#: In a run's folder: locked while the driver computes.
LOCK_FILE = "features.lock"
#: Images whose views pass the tower at once: on a CPU, more are not faster.
AT_ONCE = 4


@contextmanager
def computed_ahead(job: Job) -> Iterator[None]:
    """Inside the block, a thread computes what a training that is just starting lacks; it ends with the block.

    An error in it is left to the ranks, who meet it, too.
    """
    # Where steps were made, the ranks find the features, or those of later versions.
    if not _here(job) or (job.run / STARTS_FILE).exists():
        yield
        return
    prepare()
    stop, lock = Event(), ExitStack()
    lock.enter_context(locked(job.run / LOCK_FILE))
    thread = Thread(target=_compute, args=(job, stop, lock), name="features")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def wait(job: Job) -> None:
    """Returns when the driver has computed what it can."""
    if _here(job):
        with locked(job.run / LOCK_FILE):
            pass


def _here(job: Job) -> bool:
    return job.train.features and not job.joined and not job.train.gpus_per_worker


def _compute(job: Job, stop: Event, lock: ExitStack) -> None:
    with lock:
        # Imported here, so that Ray's start does not wait for it.
        from ifas.model.build import build, load
        from ifas.model.fast import speed_up
        from ifas.model.sizing import dtype_of
        from ifas.training.batches import Batches

        try:
            dtype = dtype_of(job.train)
            model, processor = (
                load(storage.here(job.base), dtype=dtype)
                if job.base
                else build(job.model, seed=job.train.seed, dtype=dtype)
            )
            batches = Batches(job, processor, 0, model=model.eval().to(dtype))
            assert batches.features is not None
            speed_up(model, AT_ONCE)  # only now: the features are named by the weights as they were
            lacking = [pair for pair in batches.first_versions() if not batches.features.has(*pair)]
            progress = Progress("train", len(lacking), unit="images seen by the tower")
            for start in range(0, len(lacking), AT_ONCE):
                if stop.is_set():
                    return
                batches.features.rows(lacking[start : start + AT_ONCE])
                progress.advance(len(lacking[start : start + AT_ONCE]))
        except (IfasError, OSError, RuntimeError):
            return
