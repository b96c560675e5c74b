"""What workers tell the driver: the events of their progress, and how they ended.

Workers of a cluster share no file with the driver. A queue beside the driver takes what they send.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from ifas.compute import peak
from ifas.core import progress

if TYPE_CHECKING:
    from ray.util.queue import Queue

#: Ends the driver's thread.
_END = "end"


class _Event(NamedTuple):
    fields: dict[str, Any]


class _Peak(NamedTuple):
    gib: float


@contextmanager
def heard() -> Iterator[tuple[Queue, list[Any]]]:
    """Inside the block, events of workers that call `join` are this process's events.

    Yields:
        The queue, to be handed to the workers; and what else they `send`, complete when the block has ended.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On the driver's node: it is not lost with a worker's, and the driver's node may have no CPU for actors.
    beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": beside})

    others: list[Any] = []

    def listen() -> None:
        with suppress(RayError):  # the cluster is gone: this process hears of it without us
            while (said := queue.get()) != _END:
                if isinstance(said, _Event):
                    progress.forward(said.fields)
                elif isinstance(said, _Peak):
                    peak.told(said.gib)
                else:
                    others.append(said)

    thread = Thread(target=listen, name="relay", daemon=True)
    thread.start()
    try:
        yield queue, others
    finally:
        with suppress(RayError):
            queue.put(_END)
            thread.join()
            queue.shutdown(force=True)


def join(queue: Queue) -> None:
    """The events of this process go to the driver from now on."""
    progress.deliver(lambda event: queue.put(_Event(event)))


def send_peak(queue: Queue) -> None:
    """Tells how much memory this process's pod had at once so far. Nobody hears it where the driver is gone."""
    from ray.exceptions import RayError

    with suppress(RayError):
        queue.put(_Peak(peak.here()))


def send(queue: Queue, said: Any) -> None:
    """Tells the driver; it will hear it, whatever becomes of this process."""
    queue.put(said)
