"""Request limits: what a request must be before BentoML sees it: small enough, multipart, one picture as a file.

BentoML has no limit on a body, downloads a URL that comes in place of a file, names a temporary file after the
client's, and answers 500 to a broken multipart frame. So the body is counted as it comes in (chunked ones too),
parsed here, and handed on in a frame of our own.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

log = logging.getLogger("bentoml.ifas")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

VERIFY = "/verify"
#: Probes and metrics have no body to speak of and must answer under load.
EXEMPT = ("/livez", "/readyz", "/healthz", "/metrics")

_YES, _NO = ("true", "1", "yes"), ("false", "0", "no")
#: A client that is cut off while it sends sees a reset, not our answer: so much more is read and thrown away first.
_DRAIN_BYTES, _DRAIN_SECONDS = 32 * 2**20, 5.0


class _Refused(Exception):
    def __init__(self, status: int, error: str, fix: str) -> None:
        super().__init__(error)
        self.status = status
        self.body = {"error": error, "fix": fix}


class RequestLimits:
    """ASGI middleware.

    Args:
        app: what it protects.
        max_body_bytes: largest request body.
    """

    def __init__(self, app: App, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handles one connection event."""
        if scope["type"] != "http" or scope["path"] in EXEMPT:
            return await self.app(scope, receive, send)
        try:
            body = await self._read(scope, receive)
            if body is None:  # the client went away
                return None
            if scope["path"] == VERIFY and scope["method"] == "POST":
                scope, body = await _reframed(scope, body)
        except _Refused as refused:
            return await _refuse(refused, scope, receive, send)
        return await self.app(scope, _replay(body, receive), send)

    async def _read(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes | None:
        too_large = _Refused(
            413, f"request body is larger than {self.max_body_bytes} bytes", "send a smaller picture, one per request"
        )
        declared = _header(scope, b"content-length")
        if declared.isdigit() and int(declared) > self.max_body_bytes:
            if not _header(scope, b"expect") and int(declared) <= self.max_body_bytes + _DRAIN_BYTES:
                await _drain(receive)
            raise too_large
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self.max_body_bytes:
                chunks.clear()
                if message.get("more_body"):
                    await _drain(receive)
                raise too_large
            if not message.get("more_body"):
                return b"".join(chunks)


async def _reframed(scope: MutableMapping[str, Any], body: bytes) -> tuple[MutableMapping[str, Any], bytes]:
    """The request with a body that holds the picture and `explain`, and nothing else of the client's."""
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
    # Not to be guessed: a picture that held the boundary could smuggle in fields of its own.
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Disposition: form-data; name="
    parts = (
        f'{head}"explain"\r\n\r\n{str(explain).lower()}\r\n',
        f'{head}"image"; filename="image"\r\nContent-Type: application/octet-stream\r\n\r\n',
    )
    body = b"".join(("".join(parts).encode(), picture, f"\r\n--{boundary}--\r\n".encode()))
    return body, f"multipart/form-data; boundary={boundary}"


async def _fields(scope: MutableMapping[str, Any], body: bytes) -> tuple[bytes, bool]:
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
            raise _Refused(400, "field image is missing", "send the picture as a file: curl -F image=@face.jpg")
        if len(given) != 1 or not isinstance(given[0], UploadFile):
            raise _Refused(400, "field image must be one file", "send the picture itself: curl -F image=@face.jpg")
        explain = form.get("explain", "true")
        if not isinstance(explain, str) or explain.strip('"').lower() not in (*_YES, *_NO):
            raise _Refused(400, "field explain must be true or false", "leave it out to get an explanation")
        return await given[0].read(), explain.strip('"').lower() in _YES
    finally:
        await request.close()


def _header(scope: MutableMapping[str, Any], name: bytes) -> bytes:
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


async def _refuse(refused: _Refused, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    from starlette.responses import JSONResponse

    log.info("refused status=%d path=%s: %s", refused.status, scope["path"], refused.body["error"])
    # What is left of the body is not read, so the connection can't be used again.
    headers = {"connection": "close"} if refused.status == 413 else None
    await JSONResponse(refused.body, status_code=refused.status, headers=headers)(scope, receive, send)
