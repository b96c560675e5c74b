"""Signatures of requests, as Standard Webhooks has them: HMAC-SHA256 over id, time and content, at most 5 minutes old.

In binary mode an event's attributes are in headers, which Standard Webhooks does not sign. There the signed content is
those headers, a line each, and then the body; so nobody can make another event of a request that was listened to.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from ifas.core.errors import ConfigError

#: Least bytes of a secret, by Standard Webhooks.
LEAST_BYTES = 24
PREFIX = "whsec_"
HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


class Unsigned(ValueError):
    """A request without a valid signature: none, another secret, other content, too old or too new."""


def keys_of(variable: str) -> list[bytes]:
    """The secrets in an environment variable, separated by spaces: the new and the old one while it is changed.

    Raises:
        ConfigError: there is none, or one that is no secret. It is not shown.
    """
    fix = f"put one into the Secret that {variable} comes from, e.g. whsec_$(openssl rand -base64 32)"
    found = []
    for secret in os.environ.get(variable, "").split():
        try:
            key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise ConfigError(f"a key in {variable} is not base64", fix) from None
        if len(key) < LEAST_BYTES:
            raise ConfigError(f"a key in {variable} has fewer than {LEAST_BYTES} bytes", fix)
        found.append(key)
    if not found:
        raise ConfigError(f"{variable} is not set", fix)
    return found


def keys_of_each(variables: Mapping[str, str]) -> dict[str, list[bytes]]:
    """Sender -> its secrets, from its environment variable.

    Raises:
        ConfigError: as `keys_of`, or two senders have the same secret, which would not say who sent.
    """
    found = {sender: keys_of(variable) for sender, variable in variables.items()}
    owners: dict[bytes, str] = {}
    for sender, keys in found.items():
        for key in keys:
            if owners.setdefault(key, sender) != sender:
                raise ConfigError(f"{owners[key]} and {sender} have the same secret", "give each sender its own")
    return found


def content(headers: Mapping[str, str], body: bytes) -> bytes:
    """What is signed of a request, header names in lower case."""
    attributes = sorted((n, v) for n, v in headers.items() if n.startswith("ce-"))
    if not attributes:
        return body
    attributes.append(("content-type", headers.get("content-type", "")))
    lines = "".join(f"{name}: {value}\n" for name, value in attributes)
    return f"{lines}\n".encode() + body


def verify(headers: Mapping[str, str], body: bytes, keys: Sequence[bytes]) -> None:
    """Raises Unsigned unless one of the keys signed the request within the last 5 minutes."""
    from standardwebhooks import Webhook, WebhookVerificationError

    wrong: Exception = Unsigned("no secret")
    for key in keys:
        try:
            Webhook(key).verify(content(headers, body), dict(headers), json_parse=False)
        except WebhookVerificationError as error:
            wrong = error
        except ValueError as error:  # not UTF-8, or a header that is not `v1,BASE64`
            wrong = error
        else:
            return
    raise Unsigned(str(wrong)) from wrong


def sign(
    headers: Mapping[str, str], body: bytes, key: bytes, at: datetime | None = None, name: str = ""
) -> dict[str, str]:
    """The headers that sign a request. `name`: id of the message, the same when it is sent again; empty: a new one."""
    from standardwebhooks import Webhook

    at = at or datetime.now(UTC)
    name = name or f"msg_{secrets.token_hex(12)}"
    signature = Webhook(key).sign(name, at, content(headers, body).decode())
    return dict(zip(HEADERS, (name, str(int(at.timestamp())), signature), strict=True))
