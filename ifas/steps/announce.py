"""Tells a receiver what the ledger has decided: one signed CloudEvent for each entry, `dev.ifas.candidate.<state>`.

The decision never waits for the receiver and stands whatever it does. After a decision is committed, the entries that
are left in the outbox are sent, oldest first; one that is acknowledged (2xx) is marked and not sent again. An event may
come twice: its sender was killed before the mark, its answer was lost, or two processes sent at once. It then has the
same `id`, the entry's hash. None is lost: what was not acknowledged is sent by the next decision, or by `ifas ledger
announce`; of what the receiver refuses for its content, only by that command. An entry is not sent from a ledger that
was altered, nor before the witness has its head.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ifas.core.config import RunConfig
from ifas.core.errors import ConfigError, IfasError, LaunchError
from ifas.core.progress import emit
from ifas.core.storage import is_remote, unpinned
from ifas.core.urls import check_http
from ifas.steps.ledger import ledger_url

if TYPE_CHECKING:
    from ifas.promotion.candidate import Candidate, Entry
    from ifas.promotion.ledger import Ledger

URL_ENV = "IFAS_EVENTS_URL"
SECRET_ENV = "IFAS_EVENTS_SECRET"  # noqa: S105 - the name of a variable
TYPE = "dev.ifas.candidate."
#: Seconds before each try of one event, and for each answer.
PAUSES = (0, 1, 3)
ANSWER_S = 10.0
#: After a decision, no further event is begun when so much time has passed.
LONGEST_S = 60.0
#: What a run left, under the names that the pipeline `release` wants.
ARTIFACTS = ("record", "model", "evaluation", "lineage")
#: Answers about one event, not about the receiver or the signature: the next event may be taken.
OF_THE_EVENT = (400, 403, 409, 413, 415, 422)
#: Answers below 500 after which the same may be taken a moment later.
SOON = (408, 425, 429)


@dataclass(frozen=True)
class Receiver:
    """Where events go, what signs them, and their `source`."""

    url: str
    key: bytes
    source: str


@dataclass(frozen=True)
class Told:
    """An event, and what became of it: `left` was not sent, or not answered as it must be. `why` is empty if sent."""

    event: dict[str, Any]
    state: Literal["sent", "refused", "left"]
    why: str = ""


def events_url(config: RunConfig) -> str:
    """Where events go; empty: nowhere. `IFAS_EVENTS_URL` overrides the configuration, which a run can choose."""
    return os.environ.get(URL_ENV) or config.gate.events


def receiver(config: RunConfig) -> Receiver | None:
    """Who gets the events; None where they are off.

    Raises:
        ConfigError: not a URL of a web service, or no secret to sign with.
    """
    from ifas.trigger.signature import keys_of

    url = events_url(config)
    if not url:
        return None
    check_http(url, f"gate.events (or {URL_ENV})")
    try:
        return Receiver(url, keys_of(SECRET_ENV)[0], config.gate.events_source)
    except ConfigError as error:
        raise ConfigError(
            f"gate.events (or {URL_ENV}) is set, but events can't be signed: {error.what}",
            f"set {SECRET_ENV} to what the receiver checks with, e.g. whsec_$(openssl rand -base64 32)",
        ) from error


def required(config: RunConfig) -> Receiver:
    """Who gets the events. Raises ConfigError as `receiver`, and where they are off."""
    to = receiver(config)
    if to is None:
        raise ConfigError("no receiver of events is set", f"set gate.events, or {URL_ENV}, to its URL")
    return to


def switch_on(config: RunConfig) -> None:
    """Before a decision: what is decided from now on is to be sent, even if this process is killed right after it.

    The ledger must be open. Where events are off, nothing is done.

    Raises:
        ConfigError: the outbox can't be made beside the ledger.
    """
    from ifas.promotion.outbox import Outbox

    if not events_url(config):
        return
    outbox = Outbox(ledger_url(config))
    try:
        outbox.switch_on()
    finally:
        outbox.close()


def announce(config: RunConfig, ledger: Ledger) -> None:
    """After a decision: sends what is left. Raises nothing about it, but notes what could not be sent."""
    if not events_url(config):
        return
    try:
        told = send(config, ledger, longest_s=LONGEST_S)
    except IfasError as error:
        _note(f"no event was sent: {error.what}")
        return
    missed = [one for one in told if one.state != "sent"]
    if missed:
        _note(f"{len(missed)} of {len(told)} events were not sent: {missed[0].why}")


@contextmanager
def announcing(config: RunConfig, ledger: Ledger) -> Iterator[None]:
    """What is decided in this block is sent at its end. Raises as `switch_on`."""
    switch_on(config)
    try:
        yield
    except IfasError:  # what was decided on the way to it stands
        announce(config, ledger)
        raise
    announce(config, ledger)


def send(
    config: RunConfig,
    ledger: Ledger,
    *,
    again: bool = False,
    before: bool = False,
    dry_run: bool = False,
    longest_s: float | None = None,
) -> list[Told]:
    """Sends the entries that are left, oldest first, and marks those that are acknowledged.

    Args:
        again: also those that the receiver has refused.
        before: also those from before events were switched on.
        dry_run: send and mark nothing; all are `left`.
        longest_s: begin no further event after so many seconds.

    Raises:
        ConfigError: as `required`.
        DataError: the ledger was altered, or the witness lacks a head or can't be reached.
    """
    from ifas.promotion.outbox import Outbox

    to = required(config)
    outbox = Outbox(ledger_url(config), make=not dry_run)
    try:
        decisions = ledger.decisions()
        candidates = {entry.hash: candidate for candidate, entry in decisions}
        told, why, ends = [], "", time.monotonic() + longest_s if longest_s is not None else math.inf
        for entry in outbox.left([entry for _, entry in decisions], refused=again, before=before):
            one = Told(event_of(candidates[entry.hash], entry, to.source), "left", why)
            if not (dry_run or why):
                if time.monotonic() < ends:
                    one = _sent(to, one.event)
                else:
                    one = replace(one, why=f"the time for sending, {longest_s:g} s, is over")
                why = one.why if one.state == "left" else ""
            if one.state != "left":
                outbox.mark(entry, one.state)
            told.append(one)
        return told
    finally:
        outbox.close()


def event_of(candidate: Candidate, entry: Entry, source: str) -> dict[str, Any]:
    """An entry as a CloudEvent 1.0. What a person wrote is left out, and so are paths of one machine."""
    places = {name: unpinned(str(candidate.facts.get("artifacts", {}).get(name, "")))[0] for name in ARTIFACTS}
    return {
        "specversion": "1.0",
        "id": entry.hash,
        "source": source,
        "type": f"{TYPE}{entry.to_state}",
        "subject": candidate.id,
        "time": entry.at,
        "datacontenttype": "application/json",
        "data": {
            "candidate": candidate.id,
            "product": candidate.product,
            "actor": entry.actor,
            "evidence_sha256": entry.evidence_sha256,
            **{name: uri for name, uri in places.items() if is_remote(uri) and not uri.startswith("file:")},
        },
    }


def _sent(to: Receiver, event: dict[str, Any]) -> Told:
    from ifas.trigger.sending import deliver, shown

    body, why = json.dumps(event).encode(), ""
    for pause in PAUSES:
        time.sleep(pause)
        try:
            status, text = deliver(to.url, body, to.key, name=f"msg_{event['id']}", seconds=ANSWER_S)
        except LaunchError as error:
            why = error.what
            continue
        if 200 <= status < 300:
            return Told(event, "sent")
        why = f"{shown(to.url)} answered {status} to {event['type']}: {' '.join(text.split())[:300]}"
        if status in OF_THE_EVENT:
            return Told(event, "refused", why)
        if status < 500 and status not in SOON:
            break
    return Told(event, "left", why)


def _note(said: str) -> None:
    emit("note", "announce", text=f"{said}; the decision stands. To send what is left: ifas ledger announce")
