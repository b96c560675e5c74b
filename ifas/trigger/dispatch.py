"""Decides on events and starts their runs, in one thread of the one process that may."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from ifas.core.config import RunConfig
from ifas.core.errors import ConfigError, IfasError, LaunchError
from ifas.trigger.decide import DAY
from ifas.trigger.events import TYPES
from ifas.trigger.rules import Trigger, settings
from ifas.trigger.store import Start, Store

log = logging.getLogger("ifas.trigger")

#: Starts a run of a pipeline by name, with a configuration and further arguments, unless there is one of that name;
#: returns its id. Raises ConfigError where it never will; after any other error it is tried again.
Starter = Callable[[str, str, RunConfig, dict[str, str]], str]
LONGEST_WAIT = timedelta(minutes=5)
#: Between two passes, so that the events that come in meanwhile are decided on together.
PAUSE_SECONDS = 0.1
#: Without a pass or a start that ended, it is stuck. One start asks KFP several times, each with a timeout.
STUCK_SECONDS = 1800.0


class Dispatcher(threading.Thread):
    """Ends when `stop` is called; what is not started then is started by the next one.

    Args:
        check: raises LaunchError when another process may start runs; then this one ends.
    """

    def __init__(
        self, store: Store, trigger: Trigger, starter: Starter, check: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(name="dispatcher", daemon=True)
        self.store = store
        self.trigger = trigger
        self.starter = starter
        self.check = check
        self._ended = time.monotonic()
        self._prune_at = datetime.min.replace(tzinfo=UTC)
        self._wake = threading.Event()
        self._stopped = threading.Event()

    def wake(self) -> None:
        """There is something new."""
        self._wake.set()

    def stop(self) -> None:
        """Ends after the start that is under way."""
        self._stopped.set()
        self._wake.set()

    def trouble(self) -> str:
        """Why it decides on nothing; "" while it works."""
        if not self.is_alive():
            return "the dispatcher has ended"
        idle = time.monotonic() - self._ended
        return f"the dispatcher has ended no pass for {idle:.0f} s" if idle > STUCK_SECONDS else ""

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopped.is_set():
            self._wake.clear()
            try:
                self.check()
            except LaunchError as error:
                log.critical("%s", error.what)
                os.kill(os.getpid(), signal.SIGTERM)  # ends the service, as anybody would
                return
            try:
                busy = self.pass_once()
            except Exception:  # a database that is away, above all; nothing is lost by trying again
                log.exception("a pass failed; trying again")
                busy = False
            self._ended = time.monotonic()
            if not busy:
                self._wake.wait(1.0)
            self._stopped.wait(PAUSE_SECONDS)

    def pass_once(self) -> bool:
        """Decides on what is due, and starts what was decided; whether there may be more."""
        self._prune(datetime.now(UTC))
        decided = self.store.decide(self.trigger, datetime.now(UTC))
        for start in self.store.starts(datetime.now(UTC)):
            if self._stopped.is_set():
                break
            self._start(start)
            self._ended = time.monotonic()
        return decided > 0

    def _prune(self, now: datetime) -> None:
        """At the start, and then once a day."""
        if now < self._prune_at:
            return
        if gone := self.store.prune(now - timedelta(days=self.trigger.keep_days)):
            log.info("%d events and refusals of more than %d days ago are deleted", gone, self.trigger.keep_days)
        self._prune_at = now + DAY

    def _start(self, start: Start) -> None:
        try:
            rule = self.trigger.rules.get(start.rule)
            if rule is None:
                raise ConfigError(f"the rule {start.rule} is gone", "replay the event when it is back")
            config, arguments = settings(rule, TYPES[start.type].model_validate(start.data))
            run_id = self.starter(rule.run, start.run, config, arguments)
        except (ConfigError, ValidationError) as error:
            log.error("run %s can't be started: %s", start.run, error)
            self.store.failed(start, str(error), datetime.now(UTC))
        except Exception as error:  # one run that can't be started must not hold up the others
            wait = min(LONGEST_WAIT, timedelta(seconds=2 ** min(start.attempts, 20)))
            now = datetime.now(UTC)
            said = error.what if isinstance(error, IfasError) else f"{type(error).__name__}: {error}"
            log.warning(
                "run %s is not started, next try in %s: %s",
                start.run,
                wait,
                said,
                exc_info=not isinstance(error, IfasError),
            )
            self.store.postponed(start, said, now + wait, now)
        else:
            log.info("run %s is started as %s", start.run, run_id)
            self.store.started(start, run_id, datetime.now(UTC))
