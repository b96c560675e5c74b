"""Connection limits: a connection whose client sends nothing, half a header, or reads no answer is closed in time.

uvicorn has no time-out for the header of a request, BentoML no option for it, and ASGI shows a connection only once
its header is whole. So the process looks at its own sockets once in a while, and shuts down those of which ASGI has
not heard for too long. To uvicorn that looks as if the client had hung up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ifas.serving.asgi import App, Message, Receive, Scope, Send

log = logging.getLogger("bentoml.ifas")

#: Address and port of a client, as in a scope.
Peer = tuple[str, int]

OPEN_FILES = "/dev/fd"
#: Number of open files that are reserved for other uses than connections.
OTHER_FILES = 64
INTERNET = (socket.AF_INET, socket.AF_INET6)


def affordable(connections: int) -> int:
    """How many connections this process can hold, at most `connections`. Raises its limit of open files first."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # some systems do not grant the hard limit that they report
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return connections if soft == resource.RLIM_INFINITY else max(1, min(connections, soft - OTHER_FILES))


@dataclass
class _Request:
    """The current request of a connection, or its last one."""

    since: float
    #: Its body is complete.
    whole: bool = False
    ended: bool = False


class ConnectionLimits:
    """ASGI middleware. Use it once per process: it treats every port that the process listens on as that of `app`.

    Args:
        app: what it protects.
        header_seconds: time for the header of the next request; then the connection is closed.
        answer_seconds: time for a request from its header to its end; then the connection is closed.
        max_connections: above this number, the connections that have waited longest for data are closed.
    """

    def __init__(self, app: App, header_seconds: float, answer_seconds: float, max_connections: int) -> None:
        self.app = app
        self.header_seconds = header_seconds
        self.answer_seconds = answer_seconds
        self.max_connections = max_connections
        self._requests: dict[Peer, _Request] = {}
        #: Inode of a socket that is open -> its client (None: not a client's), and when it was first seen.
        self._sockets: dict[int, tuple[Peer | None, float]] = {}
        #: Closed to list the open files, which needs one itself: there may be no other left.
        self._spare = os.open(os.devnull, os.O_RDONLY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection event."""
        if scope["type"] == "lifespan":
            watching = asyncio.create_task(self._watch())
            try:
                return await self.app(scope, receive, send)
            finally:
                watching.cancel()
        if not scope.get("client"):
            return await self.app(scope, receive, send)
        host, port = scope["client"]
        request = self._requests[str(host), int(port)] = _Request(time.monotonic())

        async def received() -> Message:
            message = await receive()
            request.whole = not message.get("more_body", False)
            return message

        try:
            return await self.app(scope, received, send)
        finally:
            request.since, request.ended = time.monotonic(), True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self.header_seconds / 4))
            try:
                self.close_overdue()
            except OSError as error:
                log.warning("open connections can't be listed: %s", error)

    def close_overdue(self) -> None:
        """Shuts down the connections that are overdue or too many."""
        now = time.monotonic()
        waiting: list[tuple[float, int]] = []
        overdue: list[int] = []
        clients = self._clients(now)
        for fd, peer, seen in clients:
            request = self._requests.get(peer)
            if request is None or request.ended:
                since = seen if request is None else max(seen, request.since)
                if now - since > self.header_seconds:
                    overdue.append(fd)
                else:
                    waiting.append((since, fd))
            elif now - request.since > self.answer_seconds:
                overdue.append(fd)
            elif not request.whole:
                waiting.append((request.since, fd))
        too_many = len(clients) - len(overdue) - self.max_connections
        overdue += [fd for _, fd in sorted(waiting)[: max(too_many, 0)]]
        for fd in overdue:
            with contextlib.suppress(OSError), _socket(fd) as client:  # gone by itself
                client.shutdown(socket.SHUT_RDWR)
        if overdue:
            log.info("closed %d of %d connections that were overdue or too many", len(overdue), len(clients))
        connected = {peer for _, peer, _ in clients}
        self._requests = {p: r for p, r in self._requests.items() if p in connected or not r.ended}

    def _clients(self, now: float) -> list[tuple[int, Peer, float]]:
        """Descriptor, client and time of first sight of each connection to a port that this process listens on."""
        found: dict[int, int] = {}
        for name in self._open_files():
            with contextlib.suppress(OSError):  # the descriptor of this listing
                status = os.fstat(int(name))
                if stat.S_ISSOCK(status.st_mode):
                    found[status.st_ino] = int(name)
        # A socket that was not a client's at first sight never becomes one, but may listen from now on.
        fresh = [inode for inode in found if inode not in self._sockets]
        ports = {port for fd in found.values() if (port := _listens_on(fd))} if fresh else set()
        self._sockets = {inode: known for inode, known in self._sockets.items() if inode in found}
        for inode in fresh:
            self._sockets[inode] = _client(found[inode], ports), now
        return [(found[inode], peer, seen) for inode, (peer, seen) in self._sockets.items() if peer is not None]

    def _open_files(self) -> list[str]:
        with contextlib.suppress(OSError):  # it could not be opened again last time
            os.close(self._spare)
        self._spare = -1
        try:
            return os.listdir(OPEN_FILES)
        finally:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)


@contextlib.contextmanager
def _socket(fd: int) -> Iterator[socket.socket]:
    """The socket of a descriptor that someone else owns."""
    borrowed = socket.socket(fileno=fd)
    try:
        yield borrowed
    finally:
        borrowed.detach()


def _listens_on(fd: int) -> int:
    with contextlib.suppress(OSError), _socket(fd) as found:
        if found.family in INTERNET and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return int(found.getsockname()[1])
    return 0


def _client(fd: int, ports: set[int]) -> Peer | None:
    with contextlib.suppress(OSError), _socket(fd) as found:
        if found.family in INTERNET and found.getsockname()[1] in ports:
            host, port, *_ = found.getpeername()
            return str(host), int(port)
    return None
