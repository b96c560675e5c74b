"""Connection limits on real sockets under uvicorn; a Bento behind them is attacked in e2e."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import pytest
import uvicorn

from ifas.serving.connections import ConnectionLimits, affordable

HEADER_SECONDS, ANSWER_SECONDS, MAX_CONNECTIONS = 1.0, 2.5, 20


async def app(scope, receive, send):
    """Answers /slow after 1.4 s, /endless not at all, /large with more than a socket holds."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep({"/slow": 1.4, "/endless": 3600}.get(scope["path"], 0))
    body = bytes(50 * 2**20 if scope["path"] == "/large" else 2)
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def served(header_seconds):
    """A server with the limits on a thread; yields its address."""
    limits = ConnectionLimits(app, header_seconds, ANSWER_SECONDS, MAX_CONNECTIONS)
    config = uvicorn.Config(limits, port=0, log_config=None, timeout_keep_alive=3600, forwarded_allow_ips="")
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listening.getsockname()
    server.should_exit = server.force_exit = True
    thread.join(timeout=10)
    assert not thread.is_alive(), "it would close the connections of the next test"


@pytest.fixture
def address():
    with served(HEADER_SECONDS) as found:
        yield found


@pytest.fixture
def connect(address):
    with ExitStack() as stack:
        yield lambda sent=b"": connected(stack, address, sent)


def connected(stack, address, sent=b""):
    raw = stack.enter_context(socket.create_connection(address, timeout=30))
    raw.sendall(sent)
    return raw


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


def answered(raw):
    """Whether a whole answer of status 200 comes."""
    received = b""
    while not received.endswith(b"\r\n\r\n\0\0"):
        more = raw.recv(100)
        if not more:
            return False
        received += more
    return received.startswith(b"HTTP/1.1 200")


def test_connections_without_a_whole_header_are_closed_in_time(connect):
    attacks = {
        "nothing": (b"", b""),
        "half a line": (b"GET / HT", b""),
        "endless header": (request()[:-2], b"X: y\r\n"),
        "idle": (request(), b""),
        "second header": (request() + request()[:-2], b"X: y\r\n"),
        "after a body": (request(extra="Content-Length: 9999\r\n") + bytes(9999), b""),
    }
    with ThreadPoolExecutor(len(attacks)) as pool:
        running = {name: pool.submit(seconds_until_closed, connect(s), t) for name, (s, t) in attacks.items()}
    for name, seconds in running.items():
        assert HEADER_SECONDS * 0.9 < seconds.result() < HEADER_SECONDS + 2, name


def slow_answer(raw, extra=""):
    raw.sendall(request("/slow", extra))
    return answered(raw)


def slow_body(raw):
    raw.sendall(request(extra="Content-Length: 10\r\n"))
    for _ in range(10):
        time.sleep(HEADER_SECONDS / 7)
        raw.sendall(b"x")
    return answered(raw)


def several_requests(raw):
    for _ in range(5):
        time.sleep(HEADER_SECONDS * 0.3)
        raw.sendall(request())
        if not answered(raw):
            return False
    return True


def test_answers_bodies_and_connections_may_take_longer_than_a_header(connect):
    # A header that names another client must not hide whose request it is.
    forwarded = partial(slow_answer, extra="X-Forwarded-For: 203.0.113.9\r\n")
    with ThreadPoolExecutor(4) as pool:
        running = {use: pool.submit(use, connect()) for use in (slow_answer, forwarded, slow_body, several_requests)}
    assert all(done.result() for done in running.values()), running


@pytest.mark.slow
def test_requests_that_do_not_end_are_closed(connect):
    """One that is not answered, and one whose client does not read the answer."""
    unread = connect(request("/large"))
    seconds = seconds_until_closed(connect(request("/endless")))
    assert ANSWER_SECONDS * 0.9 < seconds < ANSWER_SECONDS + 2
    time.sleep(0.5)
    received = 0
    try:
        while more := unread.recv(2**20):
            received += len(more)
    except ConnectionResetError:
        pass
    assert received < 50 * 2**20


def test_of_too_many_connections_those_that_wait_longest_are_closed():
    # With so long a time for headers that nothing else closes them.
    with served(header_seconds=60) as address, ExitStack() as stack:
        judged = [connected(stack, address, request("/slow")) for _ in range(5)]
        waiting = [connected(stack, address) for _ in range(MAX_CONNECTIONS + 10)]
        for raw in waiting[:15]:
            assert raw.recv(1) == b""
        for raw in waiting[15:]:
            raw.setblocking(False)
            with pytest.raises(BlockingIOError):
                raw.recv(1)
        assert all(answered(raw) for raw in judged)


def test_connections_of_others_are_left_alone(address):
    """Connections of the same process that its server did not accept: to elsewhere, from elsewhere."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        out = socket.create_connection(elsewhere.getsockname())
        taken, _ = elsewhere.accept()
        elsewhere.close()
        with out, taken:
            time.sleep(HEADER_SECONDS * 1.5)
            out.sendall(b"still here")
            assert taken.recv(100) == b"still here"


def test_the_limit_of_open_files_is_raised_and_bounds_the_connections():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        assert affordable(10) == 10
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
        assert affordable(before[1]) < before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.slow
def test_a_process_without_a_free_descriptor_closes_connections_all_the_same():
    """More half-sent headers than the process may open files: only the limits can close one."""
    code = """
import resource, uvicorn
from ifas.serving.connections import ConnectionLimits
from tests.unit.serving.test_connections import app
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
# Without a free descriptor asyncio writes a traceback for each place of the backlog, once a second.
config = uvicorn.Config(ConnectionLimits(app, 2.0, 30, 10), port=0, log_config=None, backlog=64)
listening = config.bind_socket()
print(listening.getsockname()[1], flush=True)
uvicorn.Server(config).run([listening])
"""
    with (
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as server,
        ExitStack() as stack,
    ):
        stack.callback(server.kill)
        address = ("127.0.0.1", int(server.stdout.readline()))
        listening = False
        while not listening:
            with suppress(ConnectionRefusedError):
                socket.create_connection(address).close()
                listening = True
            time.sleep(0.05)
        for _ in range(70):
            connected(stack, address, b"GET /")
        assert answered(connected(stack, address, request()))
