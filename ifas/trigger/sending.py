"""An event sent to a trigger, signed: for senders written in Python, and to try a trigger out."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from ifas.core.errors import DataError, LaunchError
from ifas.trigger.events import STRUCTURED
from ifas.trigger.signature import sign

#: Of an answer that is read.
MOST_BYTES = 64 * 2**10


def post(url: str, body: bytes, key: bytes, seconds: float = 30) -> dict[str, Any]:
    """Sends a CloudEvent in structured mode; returns the answer. When it returns, the event is kept.

    Raises:
        DataError: the trigger refuses the event.
        LaunchError: it can't be reached, or can't keep the event now: send it again, which never starts a second run.
    """
    status, text = deliver(url, body, key, seconds=seconds)
    if status == 202:
        return dict(json.loads(text))
    if status >= 500:
        raise LaunchError(f"{shown(url)} answered {status}: {text}", "send it again, later")
    raise DataError(f"{shown(url)} refused the event with {status}: {text}", "correct the event")


def deliver(url: str, body: bytes, key: bytes, *, name: str = "", seconds: float = 30) -> tuple[int, str]:
    """Sends a CloudEvent to any receiver once; returns status and text of the answer. A redirect is not followed.

    Args:
        url: without a path, that of a trigger is meant.
        name: id of the message, the same whenever it is sent again.

    Raises:
        LaunchError: the receiver can't be reached, or does not answer in time.
    """
    parts = urlsplit(url)
    place = (parts.path or "/events") + (f"?{parts.query}" if parts.query else "")
    headers = {"content-type": STRUCTURED}
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=seconds)
    try:
        connection.request("POST", place, body, {**headers, **sign(headers, body, key, name=name)})
        answer = connection.getresponse()
        return answer.status, answer.read(MOST_BYTES).decode(errors="replace")
    except (OSError, ValueError, http.client.HTTPException) as error:  # a host that is no name is a ValueError
        raise LaunchError(f"{shown(url)} can't be reached: {error}", "check the URL; then send it again") from error
    finally:
        connection.close()


def shown(url: str) -> str:
    """A receiver's URL without what may be secret in it: user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
