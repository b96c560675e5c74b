"""Addresses of services, checked before anything is sent."""

from __future__ import annotations

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
