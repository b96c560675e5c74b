"""Request limits. BentoML sees only requests that are small enough and hold one image as a multipart file.

BentoML has no limit on a body, downloads a URL that comes in place of a file, names a temporary file after the
client's, and answers 500 to a broken multipart frame. So the bytes of a body are counted as they arrive, with or
without a declared length, and the body is parsed here and passed on in a new frame. BentoML's own limit on concurrency
takes a slot as soon as the header is complete; here a request takes one when its body is complete.
"""

from __future__ import annotations

import asyncio
import logging
import secrets

from ifas.serving.asgi import App, Message, Receive, Scope, Send
from ifas.serving.pages import PATHS, PROBES, VERIFY

log = logging.getLogger("bentoml.ifas")

_YES, _NO = ("true", "1", "yes"), ("false", "0", "no")
#: Bytes that are read and dropped before a refused client is disconnected: otherwise it sees a reset, not the answer.
_DRAIN_BYTES, _DRAIN_SECONDS = 32 * 2**20, 5.0
#: A slot is free again once one more image is judged.
RETRY_AFTER_S = 1
WAIT = "wait as long as Retry-After says, then try again"


class _Refused(Exception):
    def __init__(self, status: int, error: str, fix: str) -> None:
        super().__init__(error)
        self.status = status
        self.body = {"error": error, "fix": fix}


class _Upload:
    """A body that is being received."""

    def __init__(self, deadline: asyncio.Timeout) -> None:
        self.deadline = deadline
        self.size = 0
        self.evicted = False


class RequestLimits:
    """ASGI middleware.

    Args:
        app: what it protects.
        max_body_bytes: largest request body.
        max_concurrency: largest number of requests to /verify that are complete and have no answer yet; further ones
            get 429. Bodies that are being received may take the memory of as many largest bodies; when they need more,
            the oldest request gets 503.
        body_seconds: time for the whole body.
    """

    def __init__(self, app: App, max_body_bytes: int, max_concurrency: int, body_seconds: float) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.max_concurrency = max_concurrency
        self.body_seconds = body_seconds
        self._taken: set[object] = set()
        #: Oldest first.
        self._uploads: dict[_Upload, None] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection event."""
        if scope["type"] == "websocket":
            from starlette.websockets import WebSocketClose

            return await WebSocketClose()(scope, receive, send)
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        send = _with_our_headers(send)
        if scope["path"] in PROBES:
            return await self.app(scope, receive, send)
        try:
            if scope["path"] not in PATHS:
                raise _Refused(404, "there is no such path", f"POST an image to {VERIFY}")
            body = await self._read(scope, receive)
            if body is None:  # the client went away
                from starlette.responses import Response

                # Nobody reads it, but BentoML's time-out keeps a request, and delays the end, until one is sent.
                return await Response(status_code=499)(scope, receive, send)
            if scope["path"] == VERIFY and scope["method"] == "POST":
                return await self._verify(scope, body, receive, send)
        except _Refused as refused:
            return await _refuse(refused, scope, receive, send)
        return await self.app(scope, _replay(body, receive), send)

    async def _verify(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        if len(self._taken) >= self.max_concurrency:
            raise _Refused(429, f"{self.max_concurrency} images are being judged already", WAIT)
        slot = object()
        self._taken.add(slot)

        async def sent(message: Message) -> None:
            # From here on the client decides how long it takes to read.
            self._taken.discard(slot)
            await send(message)

        try:
            scope, body = await _reframed(scope, body)
            await self.app(scope, _replay(body, receive), sent)
        finally:
            self._taken.discard(slot)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        too_large = _Refused(
            413, f"request body is larger than {self.max_body_bytes} bytes", "send a smaller image, one per request"
        )
        declared = _header(scope, b"content-length")
        if declared.isdigit() and int(declared) > self.max_body_bytes:
            if not _header(scope, b"expect") and int(declared) <= self.max_body_bytes + _DRAIN_BYTES:
                await _drain(receive)
            raise too_large
        deadline = asyncio.timeout(self.body_seconds)
        upload = _Upload(deadline)
        self._uploads[upload] = None
        body = bytearray()
        try:
            async with deadline:
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    upload.size = len(body)
                    if upload.size > self.max_body_bytes:
                        break
                    if not message.get("more_body"):
                        return bytes(body)
                    self._bound_memory()
        except TimeoutError:
            if upload.evicted:
                body.clear()
                await _drain(receive)
                raise _Refused(503, "too many bodies are on their way", WAIT) from None
            raise _Refused(408, f"the body was not complete within {self.body_seconds:g} s", "send it faster") from None
        finally:
            del self._uploads[upload]
        body.clear()
        if message.get("more_body"):
            await _drain(receive)
        raise too_large

    def _bound_memory(self) -> None:
        held = sum(upload.size for upload in self._uploads if not upload.evicted)
        for upload in self._uploads:
            if held <= self.max_concurrency * self.max_body_bytes:
                return
            if not upload.evicted and not upload.deadline.expired():
                upload.evicted = True
                upload.deadline.reschedule(asyncio.get_running_loop().time())
                held -= upload.size


def _with_our_headers(send: Send) -> Send:
    """Adds Retry-After to every 429 and 503, also to BentoML's, and removes the name of the server software."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message.get("headers", ()) if name.lower() != b"server"]
            if message["status"] in (429, 503) and not any(name.lower() == b"retry-after" for name, _ in headers):
                headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
            message = {**message, "headers": headers}
        await send(message)

    return sent


async def _reframed(scope: Scope, body: bytes) -> tuple[Scope, bytes]:
    """The request with a new body: the image and `explain`, and nothing else that the client sent."""
    kind = _header(scope, b"content-type").decode("latin-1")
    if kind.split(";")[0].strip().lower() != "multipart/form-data":
        raise _Refused(
            415,
            f"content type {kind.split(';')[0]!r} is not accepted",
            "send multipart/form-data: curl -F image=@face.jpg",
        )
    body, kind = frame(*await _fields(scope, body))
    ours = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    replaced = (b"content-type", b"content-length", b"transfer-encoding")
    kept = [(name, value) for name, value in scope["headers"] if name.lower() not in replaced]
    return {**scope, "headers": [*kept, *ours]}, body


def frame(picture: bytes, explain: bool) -> tuple[bytes, str]:
    """Body and content type of a request to /verify."""
    # Random, since an image that contains the boundary could add fields of its own.
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Disposition: form-data; name="
    parts = (
        f'{head}"explain"\r\n\r\n{str(explain).lower()}\r\n',
        f'{head}"image"; filename="image"\r\nContent-Type: application/octet-stream\r\n\r\n',
    )
    body = b"".join(("".join(parts).encode(), picture, f"\r\n--{boundary}--\r\n".encode()))
    return body, f"multipart/form-data; boundary={boundary}"


async def _fields(scope: Scope, body: bytes) -> tuple[bytes, bool]:
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException
    from starlette.formparsers import MultiPartException
    from starlette.requests import Request

    request = Request(dict(scope), _replay(body, _never))
    try:
        form = await request.form(max_files=1, max_fields=4)
    except (HTTPException, MultiPartException, UnicodeDecodeError, ValueError) as error:
        said = getattr(error, "detail", None) or getattr(error, "message", None) or str(error)
        raise _Refused(400, f"the multipart body can't be read: {said}", "send it whole, with one file") from error
    try:
        given = form.getlist("image")
        if not given:
            raise _Refused(400, "field image is missing", "send the image as a file: curl -F image=@face.jpg")
        if len(given) != 1 or not isinstance(given[0], UploadFile):
            raise _Refused(400, "field image must be one file", "send the image itself: curl -F image=@face.jpg")
        explain = form.get("explain", "true")
        if not isinstance(explain, str) or explain.strip('"').lower() not in (*_YES, *_NO):
            raise _Refused(400, "field explain must be true or false", "leave it out to get an explanation")
        return await given[0].read(), explain.strip('"').lower() in _YES
    finally:
        await request.close()


def _header(scope: Scope, name: bytes) -> bytes:
    return next((bytes(value) for key, value in scope["headers"] if key.lower() == name), b"")


def _replay(body: bytes, after: Receive) -> Receive:
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            return await after()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _never() -> Message:
    return {"type": "http.disconnect"}


async def _drain(receive: Receive) -> None:
    size = 0
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while size < _DRAIN_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
    except TimeoutError:
        return


async def _refuse(refused: _Refused, scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import JSONResponse

    if refused.status != 404:  # otherwise a client that asks for many paths fills the log
        log.info("refused status=%d path=%s: %s", refused.status, scope["path"], refused.body["error"])
    # What is left of the body is not read, so the connection can't be used again.
    headers = {"connection": "close"} if refused.status in (408, 413, 503) else None
    await JSONResponse(refused.body, status_code=refused.status, headers=headers)(scope, receive, send)
