"""The request limits, driven over ASGI: what reaches the application, and what is answered instead."""

from __future__ import annotations

import asyncio
import json

import pytest

from ifas.serving.request_limits import RequestLimits, frame

LIMIT = 1000


class App:
    """Takes what the limits let through, as BentoML would read it."""

    def __init__(self) -> None:
        self.form = None
        self.headers = None
        self.calls = 0

    async def __call__(self, scope, receive, send):
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse

        self.calls += 1
        if scope["path"] == "/verify" and scope["method"] == "POST":
            request = Request(scope, receive)
            self.headers = dict(request.headers)
            self.form = [(key, v if isinstance(v, str) else (v.filename, await v.read())) for key, v in
                         (await request.form()).multi_items()]  # fmt: skip
        await PlainTextResponse("through")(scope, receive, send)


def call(body, *, kind="", path="/verify", method="POST", length=True, chunk=None, extra=()):
    """Status, answer and application after one request; `chunk` splits the body."""
    app = App()
    limits = RequestLimits(app, LIMIT, max_concurrency=1, body_seconds=30)
    size = chunk or max(len(body), 1)
    pieces = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
    messages = [{"type": "http.request", "body": p, "more_body": i < len(pieces) - 1} for i, p in enumerate(pieces)]
    messages.append({"type": "http.disconnect"})
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", kind.encode())] if kind else []
    headers += [(b"content-length", str(len(body)).encode())] if length else []
    scope = {"type": "http", "path": path, "method": method, "headers": [*headers, *extra], "query_string": b""}
    asyncio.run(limits(scope, receive, send))
    status = sent[0]["status"] if sent else None
    answer = b"".join(m.get("body", b"") for m in sent[1:])
    return status, answer, app, messages


def multipart(*parts):
    """A body of (header line, content) pairs."""
    body = b"".join(b"--x\r\nContent-Disposition: form-data; " + h + b"\r\n\r\n" + c + b"\r\n" for h, c in parts)
    return body + b"--x--\r\n", "multipart/form-data; boundary=x"


FILE = b'name="image"; filename="john_smith.jpg"'


def test_a_good_request_reaches_the_application_in_our_own_frame():
    body, kind = multipart((FILE, b"PIXELS"))
    status, _, app, _ = call(body, kind=kind)
    assert status == 200
    assert app.form == [("explain", "true"), ("image", ("image", b"PIXELS"))]
    assert "boundary=x" not in app.headers["content-type"]


def test_any_bytes_survive():
    data = bytes(range(256)) + b"\r\n--x\r\n--x--\r\n"
    body, kind = frame(data, False)
    _, _, app, _ = call(body, kind=kind)
    assert app.form == [("explain", "false"), ("image", ("image", data))]


@pytest.mark.parametrize(
    ("given", "seen"), [(b"false", "false"), (b"0", "false"), (b'"true"', "true"), (b"TRUE", "true")]
)
def test_explain(given, seen):
    body, kind = multipart((FILE, b"P"), (b'name="explain"', given))
    _, _, app, _ = call(body, kind=kind)
    assert ("explain", seen) in app.form


def test_other_fields_do_not_get_through():
    body, kind = multipart((FILE, b"P"), (b'name="args"', b"[1]"))
    _, _, app, _ = call(body, kind=kind)
    assert [key for key, _ in app.form] == ["explain", "image"]


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([(b'name="other"; filename="a"', b"P")], "image is missing"),
        ([], "image is missing"),
        # BentoML would download it.
        ([(b'name="image"', b"http://169.254.169.254/latest/meta-data")], "must be one file"),
        ([(FILE, b"P"), (b'name="image"', b"http://127.0.0.1:1/")], "must be one file"),
        ([(FILE, b"P"), (FILE, b"Q")], "can't be read"),
        ([(FILE, b"P"), (b'name="explain"', b"maybe")], "explain"),
    ],
)
def test_wrong_fields_are_400(parts, says):
    status, answer, app, _ = call(*multipart(*parts)[:1], kind="multipart/form-data; boundary=x")
    assert status == 400
    assert says in json.loads(answer)["error"]
    assert json.loads(answer)["fix"]
    assert app.calls == 0


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=zzz"])
def test_a_broken_frame_is_400(kind):
    body, _ = multipart((FILE, b"PIXELS"))
    status, answer, app, _ = call(body[:-20], kind=kind)
    assert status == 400, answer
    assert app.calls == 0


def test_a_cut_frame_is_400():
    body, kind = multipart((FILE, b"PIXELS"))
    assert call(body[: body.index(b"PIXELS") + 3], kind=kind)[0] == 400


@pytest.mark.parametrize("kind", ["application/vnd.bentoml+pickle", "application/json", "image/png", ""])
def test_other_content_types_are_415(kind):
    status, answer, app, _ = call(b"{}", kind=kind)
    assert status == 415
    assert "multipart/form-data" in json.loads(answer)["fix"]
    assert app.calls == 0


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("chunk", [None, 100])
def test_too_large_is_413_with_and_without_a_length(length, chunk):
    body, kind = multipart((FILE, b"P" * LIMIT))
    status, answer, app, left = call(body, kind=kind, length=length, chunk=chunk)
    assert status == 413
    assert str(LIMIT) in json.loads(answer)["error"]
    assert app.calls == 0
    assert left == [{"type": "http.disconnect"}], "the rest is read, so that the client sees the answer"


def test_a_length_that_lies_does_not_help():
    body, kind = multipart((FILE, b"P" * LIMIT))
    status, *_ = call(body, kind=kind, length=False, extra=[(b"content-length", b"10")], chunk=50)
    assert status == 413


def test_a_client_that_asks_first_is_told_before_it_sends():
    body, kind = multipart((FILE, b"P" * LIMIT))
    status, _, _, left = call(body, kind=kind, extra=[(b"expect", b"100-continue")])
    assert status == 413
    assert len(left) == 2, "nothing was read"


def test_the_largest_body_passes():
    body, kind = frame(b"P" * (LIMIT - len(frame(b"", True)[0])), True)
    assert len(body) == LIMIT
    assert call(body, kind=kind)[0] == 200


def test_a_request_whose_client_goes_away_is_answered_all_the_same():
    """Nobody reads it, but BentoML's time-out, which stands around this, waits a minute for an answer to begin."""
    app = App()
    messages = [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}]

    async def receive():
        return messages.pop(0)

    sent = []

    async def send(message):
        sent.append(message["type"])

    served = RequestLimits(app, LIMIT, max_concurrency=1, body_seconds=30)
    scope = {"type": "http", "path": "/verify", "method": "POST", "headers": []}
    asyncio.run(asyncio.wait_for(served(scope, receive, send), 3))
    assert sent == ["http.response.start", "http.response.body"]
    assert app.calls == 0


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/metrics"])
def test_probes_are_exempt(path):
    assert call(b"x" * (LIMIT + 1), path=path, method="GET")[0] == 200


def test_other_paths_are_limited_too():
    assert call(b"x" * (LIMIT + 1), path="/docs.json")[0] == 413
    assert call(b"", path="/docs.json", method="GET")[0] == 200


def test_boundaries_can_not_be_guessed():
    assert frame(b"", True)[1] != frame(b"", True)[1]


class Client:
    """One request, whose body is sent piece by piece."""

    def __init__(self, limits, path="/verify", method="POST", *, reads=True):
        self.reads = reads
        self.body, kind = multipart((FILE, b"P" * (LIMIT // 2)))
        self.messages = asyncio.Queue()
        self.sent = []
        headers = [(b"content-type", kind.encode())]
        scope = {"type": "http", "path": path, "method": method, "headers": headers, "query_string": b""}
        self.task = asyncio.create_task(limits(scope, self.messages.get, self._send))

    async def _send(self, message):
        if not self.reads:
            await asyncio.Event().wait()
        self.sent.append(message)

    def send(self, data, more=False):
        self.messages.put_nowait({"type": "http.request", "body": data, "more_body": more})

    async def answer(self):
        """Status and headers."""
        await asyncio.wait_for(self.task, 10)
        return self.sent[0]["status"], dict(self.sent[0]["headers"])


class Held(App):
    """Answers when it is told to."""

    def __init__(self):
        super().__init__()
        self.go = asyncio.Event()

    async def __call__(self, scope, receive, send):
        if scope["path"] == "/verify":
            await self.go.wait()
        await super().__call__(scope, receive, send)


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_slot_is_taken_when_the_body_is_there_and_given_back():
    async def scenario():
        app = Held()
        limits = RequestLimits(app, LIMIT, max_concurrency=1, body_seconds=30)
        waiting = [Client(limits) for _ in range(5)]
        for client in waiting:
            client.send(client.body[:10], more=True)
        await settle()
        first = Client(limits)
        first.send(first.body)
        await settle()
        refused = Client(limits)
        refused.send(refused.body)
        status, headers = await refused.answer()
        assert status == 429
        assert headers[b"retry-after"] == b"1"
        for path in ("/livez", "/metrics", "/docs.json"):
            other = Client(limits, path, "GET")
            other.send(b"")
            assert (await other.answer())[0] == 200
        app.go.set()
        assert (await first.answer())[0] == 200
        for client in waiting:
            client.send(client.body[10:])
            assert (await client.answer())[0] == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("wrong", [b"--x\r\nbroken", b"--x--\r\n"])
def test_a_refused_body_gives_its_slot_back(wrong):
    async def scenario():
        limits = RequestLimits(App(), LIMIT, max_concurrency=1, body_seconds=30)
        for body, status in ((wrong, 400), (None, 200)):
            client = Client(limits)
            client.send(body or client.body)
            assert (await client.answer())[0] == status

    asyncio.run(scenario())


def test_a_cancelled_request_gives_its_slot_back():
    async def scenario():
        app = Held()
        limits = RequestLimits(app, LIMIT, max_concurrency=1, body_seconds=30)
        first = Client(limits)
        first.send(first.body)
        await settle()
        first.task.cancel()
        await settle()
        app.go.set()
        second = Client(limits)
        second.send(second.body)
        assert (await second.answer())[0] == 200

    asyncio.run(scenario())


def test_a_client_that_does_not_read_its_answer_holds_no_slot():
    async def scenario():
        app = Held()
        app.go.set()
        limits = RequestLimits(app, LIMIT, max_concurrency=1, body_seconds=30)
        first = Client(limits, reads=False)
        first.send(first.body)
        await settle()
        second = Client(limits)
        second.send(second.body)
        assert (await second.answer())[0] == 200
        assert not first.task.done()
        first.task.cancel()
        app.go.clear()
        full = [Client(limits) for _ in range(2)]
        for client in full:
            client.send(client.body)
        await settle()
        app.go.set()
        assert sorted([(await client.answer())[0] for client in full]) == [200, 429], "given back once, not twice"

    asyncio.run(scenario())


def test_a_body_that_does_not_come_is_408():
    async def scenario():
        limits = RequestLimits(App(), LIMIT, max_concurrency=1, body_seconds=0.1)
        client = Client(limits)
        for i in range(3):
            client.send(client.body[i : i + 1], more=True)
        status, headers = await client.answer()
        assert status == 408
        assert headers[b"connection"] == b"close"

    asyncio.run(scenario())


def test_bodies_on_their_way_are_bound_in_memory_and_the_oldest_gives_way():
    async def scenario():
        limits = RequestLimits(App(), LIMIT, max_concurrency=2, body_seconds=30)
        clients = []
        for _ in range(6):
            clients.append(Client(limits))
            clients[-1].send(clients[-1].body, more=True)  # more than half of what is allowed
            await settle()
        for client in clients[:3]:
            client.send(b"", more=True)
            client.send(b"")
        evicted = [await client.answer() for client in clients[:3]]
        # A client that still sends when the connection is closed sees a reset, not the answer.
        assert all(client.messages.empty() for client in clients[:3])
        assert {status for status, _ in evicted} == {503}
        assert all(headers[b"retry-after"] == b"1" for _, headers in evicted)
        for client in clients[3:]:
            client.send(b"")
            assert (await client.answer())[0] == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/x", "/verify/", "/livez/x", "/static_content/swagger-ui.css", "/../verify", "//"])
def test_unknown_paths_do_not_reach_the_application(path):
    status, answer, app, _ = call(b"x" * (LIMIT + 1), path=path)
    assert status == 404
    assert json.loads(answer)["fix"]
    assert app.calls == 0


@pytest.mark.parametrize(
    ("status", "given", "expected"), [(503, [], b"1"), (429, [(b"Retry-After", b"9")], b"9"), (200, [], None)]
)
def test_answers_of_bentoml_get_retry_after_and_lose_the_server(status, given, expected):
    async def app(scope, receive, send):
        headers = [*given, (b"server", b"BentoML Service/ifas")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def scenario():
        client = Client(RequestLimits(app, LIMIT, max_concurrency=1, body_seconds=30), "/readyz", "GET")
        found, headers = await client.answer()
        assert found == status
        assert {name.lower(): value for name, value in headers.items()} == (
            {b"retry-after": expected} if expected else {}
        )

    asyncio.run(scenario())


def test_a_web_socket_is_closed():
    sent = []

    async def send(message):
        sent.append(message["type"])

    app = App()
    scope = {"type": "websocket", "path": "/verify", "headers": []}
    asyncio.run(RequestLimits(app, LIMIT, max_concurrency=1, body_seconds=30)(scope, None, send))
    assert sent == ["websocket.close"]
    assert app.calls == 0
