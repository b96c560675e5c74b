"""An event sent to a trigger, signed: for senders written in Python, and to try a trigger out."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from ifas.core.errors import DataError, LaunchError
from ifas.trigger.events import STRUCTURED
from ifas.trigger.signature import sign


def post(url: str, body: bytes, key: bytes, seconds: float = 30) -> dict[str, Any]:
    """Sends a CloudEvent in structured mode; returns the answer. When it returns, the event is kept.

    Raises:
        DataError: the trigger refuses the event.
        LaunchError: it can't be reached, or can't keep the event now: send it again, which never starts a second run.
    """
    parts = urlsplit(url)
    headers = {"content-type": STRUCTURED}
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=seconds)
    try:
        connection.request("POST", parts.path or "/events", body, {**headers, **sign(headers, body, key)})
        answer = connection.getresponse()
        status, said = answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise LaunchError(
            f"the trigger at {url} can't be reached: {error}", "check --url; then send it again"
        ) from error
    finally:
        connection.close()
    if status == 202:
        return dict(json.loads(said))
    text = said.decode(errors="replace")
    if status >= 500:
        raise LaunchError(f"the trigger at {url} answered {status}: {text}", "send it again, later")
    raise DataError(f"the trigger at {url} refused the event with {status}: {text}", "correct the event")
