"""Refuses a step that asks for more than its RayJob's cluster has: sent, it would wait until its deadline."""

from __future__ import annotations

from ifas.core import storage
from ifas.core.config import RayConfig, RunConfig
from ifas.core.errors import ConfigError


def check_fits(config: RunConfig, step: str) -> None:
    """Checks CPUs and GPUs of all ranks or actors and, for training, the memory that `ifas model describe` predicts.

    Memory is not checked where `cluster.train.gpu_memory_gib` does not tell that of the GPUs, nor where weights are in
    a store, from which they would be fetched for it.

    Raises:
        ConfigError: what is asked, what there is, and which settings would make it fit.
    """
    check_places(config, step)
    if step == "train":
        _memory(config)


def check_places(config: RunConfig, step: str) -> None:
    """The part of `check_fits` that needs no model: CPUs and GPUs."""
    if step == "train":
        _ranks(config)
    else:
        _actors(config)


def _ranks(config: RunConfig) -> None:
    train, size = config.train, config.cluster.train
    places = size.max_workers * _places(size, train.gpus_per_worker)
    if train.workers > places:
        needed = -(-train.workers // max(1, _places(size, train.gpus_per_worker)))
        raise ConfigError(
            f"train.workers={train.workers} with {train.gpus_per_worker:g} GPUs each need more than cluster.train has: "
            f"{_has(size)}, places for {places}",
            f"set {_fix(config, places, needed)}",
        )


def _fix(config: RunConfig, places: int, needed: int) -> str:
    train, size = config.train, config.cluster.train
    if train.gpus_per_worker and not _places(size, train.gpus_per_worker):
        return f"cluster.train.gpus_per_worker={-(-train.gpus_per_worker // 1):g}, or train.gpus_per_worker=0"
    return f"cluster.train.max_workers={needed}" + (f", or train.workers={places}" if places else "")


def _actors(config: RunConfig) -> None:
    caption, size = config.caption, config.cluster.caption
    places = places_of_actors(config)
    if caption.actors > places:
        raise ConfigError(
            f"caption.actors={caption.actors} with {caption.gpus_per_actor:g} GPUs each need more than cluster.caption "
            f"has: {_has(size)}, places for {places}",
            f"raise cluster.caption.max_workers, worker_cpus or gpus_per_worker, or lower caption.actors to {places}",
        )


def places_of_actors(config: RunConfig) -> int:
    """How many actors the cluster of captioning can hold."""
    size, gpus = config.cluster.caption, config.caption.gpus_per_actor
    return size.max_workers * _places(size, gpus)


def _places(size: RayConfig, gpus: float) -> int:
    """Ranks or actors on one worker pod, with one CPU and `gpus` GPUs each."""
    if not gpus:
        return size.worker_cpus
    # Less than a GPU each: whole shares of every single GPU. More: whole GPUs.
    by_gpu = size.gpus_per_worker * int(1 / gpus) if gpus <= 1 else int(size.gpus_per_worker / gpus)
    return min(size.worker_cpus, by_gpu)


def _has(size: RayConfig) -> str:
    return f"{size.max_workers} workers with {size.worker_cpus} CPUs and {size.gpus_per_worker} GPUs each"


def _memory(config: RunConfig) -> None:
    cluster, train = config.cluster.train, config.train
    if train.gpus_per_worker and not cluster.gpu_memory_gib:
        return
    if any(storage.is_remote(part.source) for part in (config.model.vision, config.model.language)):
        return
    from ifas.model.sizing import RESERVED, Device, gib, size, will_not_fit

    sizes = size(config.model, train)
    # When the ranks are done, the driver measures the finished model there.
    weights = 4 * sizes["total"]["stored"]
    # Shared memory takes a quarter of the head's at most: see `rayjob`.
    needed = min(weights + RESERVED + cluster.shm_gib * 2**30, (weights + RESERVED) * 4 / 3)
    if needed > cluster.head_memory_gib * 2**30:
        raise ConfigError(
            f"cluster.train.head_memory_gib={cluster.head_memory_gib:g} is too little for the driver: {gib(weights)} "
            "of weights in float32, besides its own and shared memory",
            f"set cluster.train.head_memory_gib={-(-needed // 2**30):.0f}",
        )
    if train.gpus_per_worker:
        device = Device(int(cluster.gpu_memory_gib * 2**30) - RESERVED, "cluster.train.gpu_memory_gib")
    else:
        # As full as Ray may pack a pod, which it does before it takes another.
        ranks = min(train.workers, _places(cluster, 0))
        room = int((cluster.worker_memory_gib - cluster.shm_gib) * 2**30) - RESERVED
        device = Device(max(0, room) // ranks, f"cluster.train.worker_memory_gib / {ranks} ranks")
    error = will_not_fit(config.model, train, device, sizes)
    if error is not None:
        raise ConfigError(error.what, f"{error.fix}, or give cluster.train more memory")
