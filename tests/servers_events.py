"""A receiver of events for tests: real HTTP. It answers as it is told, checks signatures, and may pass events on."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from ifas.trigger.signature import verify

KEY = b"r" * 32


class Receiver(ThreadingHTTPServer):
    """Takes events.

    Attributes:
        answers: statuses of the next answers; when there are no more, 202.
        refuse: type of an event -> status.
        onward: URL that each request is sent on to, whose status is answered; empty: none.
        lose: nothing is sent on.
        alter: replaces bytes of the body on the way.
        silent: no request gets an answer; its client waits until this is false again.
        seen: (headers, event) of each request, in order.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[int] = []
        self.refuse: dict[str, int] = {}
        self.onward = ""
        self.alter = (b"", b"")
        self.lose = False
        self.silent = False
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/events?token=hunter2"

    def told(self) -> list[tuple[str, str]]:
        """(subject, state) of each request."""
        return [(event["subject"], event["type"].rpartition(".")[2]) for _, event in self.seen]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def log_message(self, *_args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        event, status = json.loads(body), 202
        if self.server.onward and not self.server.lose:
            parts = urlsplit(self.server.onward)
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
            connection.request("POST", "/events", body.replace(*self.server.alter), headers)
            status = connection.getresponse().status
            connection.close()
        elif not self.server.onward:
            verify(headers, body, [KEY])
        self.server.seen.append((headers, event))
        if self.server.silent:
            while self.server.silent:
                threading.Event().wait(0.05)
            self.close_connection = True
            return
        status = self.server.answers.pop(0) if self.server.answers else self.server.refuse.get(event["type"], status)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.silent = False
        server.shutdown()
        server.server_close()
