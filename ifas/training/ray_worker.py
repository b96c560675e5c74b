"""What runs in each Ray Train worker: the loop, with Ray's reports and notices."""

from __future__ import annotations

import os
import socket
from typing import Any

import ray.train

from ifas.compute import relay
from ifas.core import storage
from ifas.core.environment import prepare
from ifas.core.errors import ConfigError, IfasError
from ifas.core.files import remove
from ifas.training.job import Job
from ifas.training.ray_ranks import take_place
from ifas.training.startup import StartupTimer

#: What a worker sends that made a checkpoint since its machine is about to be taken away.
PREEMPTED = "preempted"


def work(config: dict[str, Any]) -> None:
    """Trains this rank's share of a job.

    An error of ifas is sent to the driver, which raises it; any other may be gone when another try is made.

    Args:
        config: the `job`; when its start `began`, seconds since the epoch; the `queue` of `relay`; and the URI of an
            object that the driver has stored as a `sign`, or empty.
    """
    job: Job = config["job"]
    clock = StartupTimer(config["began"])
    clock.mark("Ray")
    prepare()
    relay.join(config["queue"])
    try:
        take_place(joined=job.joined)
        # The driver has found the store there: from now on, one that is away comes back.
        with storage.patient():
            if _train(job, clock, config["sign"]) == "preempted":
                relay.send(config["queue"], PREEMPTED)
    except IfasError as error:
        relay.send(config["queue"], error)
        raise
    finally:
        relay.send_peak(config["queue"])


def _train(job: Job, clock: StartupTimer, sign: str) -> str:
    if job.joined:
        _look_around(job, sign)
    job.run.mkdir(parents=True, exist_ok=True)
    # Imported here, so that Ray's own processes, which only pass this function on, do not import the model's libraries.
    from ifas.training.loop import run

    # Asking for notices makes all ranks wait for each other, and nobody takes this machine away from itself.
    return run(job, ray.train.report, _notice if job.joined else (lambda: False), clock)


def _look_around(job: Job, sign: str) -> None:
    """Whether this machine has what the driver has; errors come now, not after the model was loaded."""
    if not storage.exists(sign):
        raise ConfigError(
            f"machine {socket.gethostname()} does not find in {job.uri} what the driver has stored there",
            "let train.storage name an object store, or a folder that is mounted on all machines",
        )
    job.images.read(job.rows[0].shard, job.rows[0].row)
    if os.environ["LOCAL_RANK"] == "0":  # the others write nothing before all ranks have met
        remove(job.run)  # of another run of this name: what counts is in the store


def _notice() -> bool:
    """Whether a machine of this training will be drained, as Ray knows it."""
    return ray.train.get_preemption_info() is not None
