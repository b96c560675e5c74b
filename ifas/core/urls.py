"""Addresses of services: checked before anything is sent, and shown without what is secret in them."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from ifas.core.errors import ConfigError


def check_http(url: str, what: str) -> None:
    """Raises ConfigError unless `url` is http(s) with a host; a port, if given, must be valid."""
    fix = f"{what} is like http://127.0.0.1:3000"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is not a URL: {error}", fix) from error
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"{url!r} is not a URL of a web service", fix)


def clean(text: str) -> str:
    """`text` without user and password in URLs, and without the AWS secrets of the environment."""
    text = re.sub(r"(\w+://)[^/\s@]+@", r"\1***@", text)
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        secret = os.environ.get(name)
        if secret:
            text = text.replace(secret, "***")
    return text
