"""How many requests a client may send: a bucket of `burst` that fills at `per_second`, for each address."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

#: Clients that are remembered; of more, the one that was quiet for longest is forgotten, and may send a burst again.
MOST = 10_000


class Limiter:
    """For one thread.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._clock = per_second, burst, clock
        #: Address -> what is left in its bucket, and when that was so; who sent last is last.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Seconds until this client may send; 0: now, and this request is counted."""
        now = self._clock()
        left, then = self._left.pop(client, (float(self._burst), now))
        left = min(float(self._burst), left + (now - then) * self._per_second)
        may = left >= 1
        self._left[client] = (left - 1 if may else left, now)
        if len(self._left) > MOST:
            self._left.popitem(last=False)
        return 0.0 if may else (1 - left) / self._per_second
