"""Serves the page until it is told to stop."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable

from starlette.types import ASGIApp

from ifas.core.config import ReviewConfig
from ifas.core.errors import ConfigError, LaunchError
from ifas.review import charts

#: Connections at once; further ones get 503.
MOST = 128


def check_address(config: ReviewConfig) -> None:
    """Raises ConfigError where passwords and pictures would cross a network unencrypted."""
    try:
        local = config.host == "localhost" or ipaddress.ip_address(config.host).is_loopback
    except ValueError:
        local = False
    if not local and not config.https:
        raise ConfigError(
            f"review.host is {config.host}: passwords and pictures would cross the network unencrypted",
            "put a proxy with TLS in front and set review.https=true, or listen on 127.0.0.1",
        )


def serve(app: ASGIApp, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves until SIGTERM or Ctrl-C.

    Args:
        ready: called with the URL when it listens.

    Raises:
        LaunchError: the address can't be used.
    """
    import uvicorn

    try:
        listening = socket.create_server((host, port), backlog=256)
    except OSError as error:
        raise LaunchError(f"{host}:{port} can't be listened on: {error.strerror}", "give another --port") from error
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        # Else uvicorn believes what a header says of the address, which sign-ins and proxies are judged by.
        proxy_headers=False,
        limit_concurrency=MOST,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=10,
    )
    threading.Thread(target=charts.warm_up, daemon=True).start()
    ready(f"http://{host}:{listening.getsockname()[1]}")
    uvicorn.Server(config).run(sockets=[listening])
