"""Connection limits on real sockets under uvicorn; a Bento behind them is attacked in e2e."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
import time

import pytest
import uvicorn

from ifas.serving.connections import ConnectionLimits, raise_open_file_limit

HEADER_SECONDS, ANSWER_SECONDS, MAX_CONNECTIONS = 0.4, 1.5, 20


async def app(scope, receive, send):
    """Answers /slow after a second, /endless not at all, /large with more than a socket holds."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep({"/slow": 1.0, "/endless": 3600}.get(scope["path"], 0))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    body = bytes(50 * 2**20 if scope["path"] == "/large" else 2)
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port():
    limits = ConnectionLimits(app, HEADER_SECONDS, ANSWER_SECONDS, MAX_CONNECTIONS)
    config = uvicorn.Config(limits, port=0, log_config=None, timeout_keep_alive=3600, forwarded_allow_ips="")
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = server.force_exit = True
    thread.join(timeout=10)


@pytest.fixture
def connect(port):
    opened = []

    def connected(sent=b""):
        opened.append(socket.create_connection(("127.0.0.1", port), timeout=10))
        opened[-1].sendall(sent)
        return opened[-1]

    yield connected
    for raw in opened:
        raw.close()


def request(path="/", extra=""):
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{extra}\r\n".encode()


def seconds_until_closed(raw, trickle=b""):
    """Seconds until the server has closed; what it sends is read and `trickle` is sent meanwhile."""
    begin = time.monotonic()
    raw.settimeout(0.05)
    while time.monotonic() - begin < 10:
        try:
            if trickle:
                raw.sendall(trickle)
            if not raw.recv(2**16):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - begin


@pytest.mark.parametrize(
    ("sent", "trickle"),
    [
        (b"", b""),
        (b"GET / HT", b""),
        (request()[:-2], b"X: y\r\n"),
        (request(), b""),
        (request() + request()[:-2], b"X: y\r\n"),
        (request(extra="Content-Length: 9999\r\n") + bytes(9999), b""),
    ],
    ids=["nothing", "half a line", "endless header", "idle", "second header", "after a body"],
)
def test_a_connection_without_a_whole_header_is_closed_in_time(connect, sent, trickle):
    seconds = seconds_until_closed(connect(sent), trickle)
    assert HEADER_SECONDS * 0.9 < seconds < HEADER_SECONDS + 1


def test_an_answer_may_take_longer_than_a_header(connect):
    for extra in ("", "X-Forwarded-For: 203.0.113.9\r\n"):
        assert connect(request("/slow", extra)).recv(100).startswith(b"HTTP/1.1 200")


def test_a_body_may_take_longer_than_a_header(connect):
    raw = connect(request(extra="Content-Length: 10\r\n"))
    for _ in range(10):
        time.sleep(HEADER_SECONDS / 5)
        raw.sendall(b"x")
    assert raw.recv(100).startswith(b"HTTP/1.1 200")


def test_each_request_of_a_connection_has_its_own_time(connect):
    raw = connect()
    for _ in range(6):
        time.sleep(HEADER_SECONDS / 2)
        raw.sendall(request())
        assert raw.recv(100).startswith(b"HTTP/1.1 200")


def test_a_request_that_never_ends_is_closed(connect):
    assert ANSWER_SECONDS * 0.9 < seconds_until_closed(connect(request("/endless"))) < ANSWER_SECONDS + 1


def test_a_client_that_does_not_read_its_answer_is_closed(connect):
    raw = connect(request("/large"))
    time.sleep(ANSWER_SECONDS + 1)
    received = 0
    try:
        while more := raw.recv(2**20):
            received += len(more)
    except ConnectionResetError:
        pass
    assert received < 50 * 2**20


def test_of_too_many_connections_those_that_wait_longest_are_closed(connect):
    judged = [connect(request("/slow")) for _ in range(5)]
    begin = time.monotonic()
    waiting = [connect() for _ in range(MAX_CONNECTIONS + 10)]
    time.sleep(0.25)
    for raw in waiting:
        raw.setblocking(False)
    closed = []
    for i, raw in enumerate(waiting):
        try:
            closed += [i] if raw.recv(1) == b"" else []
        except BlockingIOError:
            continue
    assert time.monotonic() - begin < HEADER_SECONDS, "too slow to tell from the time-out for headers"
    assert closed == list(range(15))
    assert all(raw.recv(100).startswith(b"HTTP/1.1 200") for raw in judged)


def test_sockets_of_others_are_left_alone(port):
    """A connection of the same process to elsewhere, and one that it makes to its own server, seen from the client."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        out = socket.create_connection(elsewhere.getsockname())
        taken, _ = elsewhere.accept()
        elsewhere.close()
        with out, taken:
            time.sleep(HEADER_SECONDS * 3)
            out.sendall(b"still here")
            assert taken.recv(100) == b"still here"


def test_the_limit_of_open_files_is_raised():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        raise_open_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
