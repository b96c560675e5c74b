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
    """Tries of late that did not succeed, in this process.

    Args:
        clock: seconds that only go up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tried: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()
        self._lock = Lock()

    def begin(self, account: str, address: str) -> int:
        """Counts a try, which `succeeded` takes back; or says how many seconds the next one has to wait.

        Counted before the password is checked: else many at once would all be let pass.
        """
        now = self._clock()
        with self._lock:
            if wait := max(self._wait(key, limit, now) for key, limit in _keys(account, address)):
                return wait
            for key, limit in _keys(account, address):
                self._tried.setdefault(key, deque(maxlen=limit)).append(now)
                self._tried.move_to_end(key)
            while len(self._tried) > MOST:
                self._tried.popitem(last=False)
        return 0

    def succeeded(self, account: str, address: str) -> None:
        """Takes a try back, and forgets the failures of this account from this address."""
        with self._lock:
            self._tried.pop((account, address), None)
            for key in (("", address), (account, "")):
                if self._tried.get(key):
                    self._tried[key].pop()

    def _wait(self, key: tuple[str, str], limit: int, now: float) -> int:
        times = self._tried.get(key)
        if times is None or len(times) < limit or (left := times[0] + WINDOW_S - now) <= 0:
            return 0
        return int(left) + 1


def _keys(account: str, address: str) -> tuple[tuple[tuple[str, str], int], ...]:
    return (((account, address), OF_ACCOUNT_AND_ADDRESS), (("", address), OF_ADDRESS), ((account, ""), OF_ACCOUNT))
