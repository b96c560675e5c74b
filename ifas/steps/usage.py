"""What a step used and what that costs, and whether a run's budget is enough for its training."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from typing import NamedTuple, cast

from ifas.compute import peak
from ifas.compute.connection import of_cluster
from ifas.core.config import ClusterConfig, PodConfig, RayConfig, RunConfig, StepName
from ifas.core.errors import ConfigError
from ifas.core.records import Lineage, Usage

#: In each pod of a pipeline: KFP's id of its run.
KFP_RUN_ID = "KFP_RUN_ID"
#: Of the pod that only watches a RayJob, or tells how a run ended.
SMALL = PodConfig(cpus=0.25, memory_gib=0.5)
HOUR = 3600


class Reserved(NamedTuple):
    """What is paid for while a step runs, used or not."""

    cpus: float
    memory_gib: float
    gpus: float


def metered(step: str, config: RunConfig, failed: float = 0) -> Callable[[], Usage]:
    """Begins to measure; the function that it returns says what was used since.

    On a cluster that is what the step's pods reserved: it is paid for. On this machine it is the CPU time of this
    process and its ended children. The peak of memory is the largest of this pod or process and of its Ray workers.

    Args:
        failed: what the step's failed tries cost; it is added to the price.
    """
    peak.forget()
    begin, cpu_before = time.monotonic(), _cpu_seconds()

    def used() -> Usage:
        hours = (time.monotonic() - begin) / HOUR
        reserved = reserved_by(step, config.cluster)
        if reserved is None:
            cpus = (_cpu_seconds() - cpu_before) / HOUR / max(hours, 1e-9)
            reserved = Reserved(cpus, peak.highest(), _gpus_here(step, config))
        return Usage(
            cpu_hours=round(reserved.cpus * hours, 6),
            gpu_hours=round(reserved.gpus * hours, 6),
            peak_memory_gib=round(peak.highest(), 3),
            price=round(failed + _price(reserved, hours, config.cluster), 4),
            currency=config.cluster.prices.currency,
        )

    return used


def reserved_by(step: str, cluster: ClusterConfig) -> Reserved | None:
    """What the step's pods have; None where this process is in no pod of a pipeline and no job of a Ray cluster."""
    job: RayConfig | None = getattr(cluster, step) if step in ("caption", "train") else None
    if of_cluster() and job:
        return _of_job(job)
    if os.environ.get(KFP_RUN_ID):
        return _of_pod(SMALL if job and job.ray == "job" else cluster.pod(cast("StepName", step)))
    return None


def price_of_try(step: str, cluster: ClusterConfig, seconds: float) -> float:
    """What a try cost at most that failed after `seconds`: of a RayJob, its cluster for as long as it was watched."""
    job: RayConfig | None = getattr(cluster, step) if step in ("caption", "train") else None
    reserved = _of_job(job) if job and job.ray == "job" else reserved_by(step, cluster)
    return _price(reserved, seconds / HOUR, cluster) if reserved else 0.0


def check_budget(config: RunConfig, lineage: Lineage, *, failed: float = 0.0) -> None:
    """Whether what is left of `cluster.budget` is enough for the training, at most: each attempt until its deadline.

    Args:
        failed: price of the training's own failed tries. Those of earlier steps are in the price of each.

    Raises:
        ConfigError: it is not. Nothing has been trained yet.
    """
    cluster = config.cluster
    if not cluster.budget:
        return
    if cluster.train.ray == "job":
        reserved = _of_job(cluster.train)
        hours = (cluster.train.backoff_limit + 1) * cluster.train.active_deadline_s / HOUR
    else:
        reserved, hours = _of_pod(cluster.pod("train")), cluster.pod("train").timeout_s / HOUR
    spent = failed + sum(entry.usage.price for entry in lineage.entries if entry.usage)
    ahead = _price(reserved, hours, cluster)
    if spent + ahead <= cluster.budget:
        return
    money = cluster.prices.currency
    raise ConfigError(
        f"training may cost up to {ahead:.2f} {money} ({hours:g} h of {reserved.cpus:g} CPUs, {reserved.memory_gib:g} "
        f"GiB and {reserved.gpus:g} GPUs), {spent:.2f} are spent, and cluster.budget is {cluster.budget:.2f}",
        "raise cluster.budget, or lower cluster.train's active_deadline_s, backoff_limit or workers",
    )


def _of_job(job: RayConfig) -> Reserved:
    workers = job.max_workers
    return Reserved(
        job.head_cpus + workers * job.worker_cpus,
        job.head_memory_gib + workers * job.worker_memory_gib,
        workers * job.gpus_per_worker,
    )


def _of_pod(pod: PodConfig) -> Reserved:
    return Reserved(pod.cpus, pod.memory_gib, pod.gpus)


def _gpus_here(step: str, config: RunConfig) -> float:
    if step == "train":
        return config.train.workers * config.train.gpus_per_worker
    return config.caption.actors * config.caption.gpus_per_actor if step == "caption" else 0


def _price(reserved: Reserved, hours: float, cluster: ClusterConfig) -> float:
    prices = cluster.prices
    per_hour = reserved.cpus * prices.cpu + reserved.memory_gib * prices.gib + reserved.gpus * prices.gpu
    return per_hour * hours


def _cpu_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)
