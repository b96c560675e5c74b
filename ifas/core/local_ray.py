"""A Ray of this machine alone: only this machine reaches it, and it has no processes that nobody asks anything.

Dashboard, autoscaler and forwarder of logs are Python processes that take seconds of a start; no setting turns them
off. Nor does one keep Ray on the loopback address: `ray.init` makes an address that others reach of a local one, and
whoever reaches Ray can run code. What is overridden is private to Ray, whose version is pinned.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
import ray._private.node

#: Ray's servers on this address are bound to it alone.
ADDRESS = "127.0.0.1"
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
}


@contextmanager
def local_ray(*, cpus: int, object_store: int, meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Within, this process is connected to a Ray of its own. Ray's processes inherit the environment.

    Args:
        cpus: tasks and actors that need one may run at once.
        object_store: bytes of shared memory.
        meanwhile: called while Ray's processes start.
    """
    before = dict(os.environ)
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    whole, ray._private.node.Node = ray._private.node.Node, partial(_Node, meanwhile)
    try:
        # "local": not one that someone else has started here.
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=object_store,
        )
        ray._private.node.Node = whole
        yield
    finally:
        ray._private.node.Node = whole
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)


class _Node(ray._private.node.Node):
    def __init__(self, meanwhile: Callable[[], object], ray_params: Any, **how: Any) -> None:
        self._meanwhile = meanwhile
        ray_params.node_ip_address = ADDRESS
        super().__init__(ray_params, **how)

    def start_ray_processes(self) -> None:
        super().start_ray_processes()
        self._meanwhile()

    def start_api_server(self, **_: Any) -> None:
        return

    def start_monitor(self) -> None:
        return

    def start_log_monitor(self) -> None:
        return
