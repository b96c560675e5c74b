"""How Ray's workers become ranks: each gets the environment variables that `engine.join` reads.

Ray's own `TorchConfig` is not used: the store of its process group listens on every interface.
"""

from __future__ import annotations

import os
import socket

import ray
import ray.train
import ray.util
from ray.train.backend import Backend
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchConfig


class _Ranks(Backend):
    """Workers of a node see all GPUs of the training there, as NCCL wants them; LOCAL_RANK picks one."""

    share_cuda_visible_devices = True


class Ranks(TorchConfig):
    """For a trainer whose workers call `take_place`."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The backend."""
        return _Ranks


def take_place(*, joined: bool) -> None:
    """Puts RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT and OMP_NUM_THREADS into the environment.

    All workers call it.

    Args:
        joined: they are workers of a cluster.
    """
    context = ray.train.get_context()
    address = broadcast_from_rank_zero(_address() if context.get_world_rank() == 0 else None)
    assert address is not None
    os.environ |= {
        "RANK": str(context.get_world_rank()),
        "WORLD_SIZE": str(context.get_world_size()),
        "LOCAL_RANK": str(context.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
        "MASTER_ADDR": address[0],
        "MASTER_PORT": str(address[1]),
        "OMP_NUM_THREADS": str(max(1, _cpus(joined) // context.get_local_world_size())),
    }


def _cpus(joined: bool) -> int:
    """CPUs that the ranks of this node share."""
    if not joined:
        return len(os.sched_getaffinity(0))  # a local Ray has as many as ranks, whatever the machine has
    # In a container, the system tells of all CPUs of the host; Ray was told those of the container.
    here = ray.get_runtime_context().get_node_id()
    return int(next(node["Resources"].get("CPU", 1) for node in ray.nodes() if node["NodeID"] == here))


def _address() -> tuple[str, int]:
    """Address of this node, and a free port."""
    host = ray.util.get_node_ip_address()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
        free.bind((host, 0))
        return host, int(free.getsockname()[1])
