"""How often a sign-in may fail: of one account from one address, from one address, and of one account in all."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from threading import Lock

#: Failures that are let pass within `WINDOW_S`.
OF_ACCOUNT_AND_ADDRESS, OF_ADDRESS, OF_ACCOUNT = 5, 20, 50
WINDOW_S = 300.0
#: Keys that are remembered; the oldest are forgotten first, so that guessing names fills no memory.
MOST = 10_000


class Attempts:
    """Failures of late, in this process.

    Args:
        clock: seconds that only go up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()
        self._lock = Lock()

    def wait(self, account: str, address: str) -> int:
        """Seconds until the next try is let pass; 0: now."""
        now = self._clock()
        with self._lock:
            return max(self._wait(key, limit, now) for key, limit in _keys(account, address))

    def failed(self, account: str, address: str) -> None:
        """Counts a failure."""
        now = self._clock()
        with self._lock:
            for key, limit in _keys(account, address):
                times = self._failed.setdefault(key, deque(maxlen=limit))
                times.append(now)
                self._failed.move_to_end(key)
            while len(self._failed) > MOST:
                self._failed.popitem(last=False)

    def succeeded(self, account: str, address: str) -> None:
        """Forgets the failures of this account from this address."""
        with self._lock:
            self._failed.pop((account, address), None)

    def _wait(self, key: tuple[str, str], limit: int, now: float) -> int:
        times = self._failed.get(key)
        if times is None or len(times) < limit or (left := times[0] + WINDOW_S - now) <= 0:
            return 0
        return int(left) + 1


def _keys(account: str, address: str) -> tuple[tuple[tuple[str, str], int], ...]:
    return (((account, address), OF_ACCOUNT_AND_ADDRESS), (("", address), OF_ADDRESS), ((account, ""), OF_ACCOUNT))
