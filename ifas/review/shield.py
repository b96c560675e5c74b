"""What every answer gets and every request is held to: headers that browsers obey, and a limit on what is sent."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: A reason, a comment and a password fit in many times.
MAX_BODY_BYTES = 64 * 2**10
ASSETS = "/assets/"
CONTENT = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=()",
}


class _TooLarge(Exception):
    """More was sent than is taken."""


class Shield:
    """ASGI middleware.

    Args:
        https: whether browsers are told to come by https only.
    """

    def __init__(self, app: ASGIApp, https: bool) -> None:
        self._app = app
        self._headers = {**HEADERS, **({"strict-transport-security": "max-age=31536000"} if https else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asset, begun = scope["path"].startswith(ASSETS), False

        async def dressed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self._dress(message, asset)
            await send(message)

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY_BYTES:
                raise _TooLarge
            return message

        try:
            if not declared.isdigit() or int(declared) > MAX_BODY_BYTES:
                raise _TooLarge
            await self._app(scope, limited, dressed)
        except _TooLarge:
            if begun:
                raise
            answer = PlainTextResponse(f"more than {MAX_BODY_BYTES} bytes were sent", 413, {"connection": "close"})
            await answer(scope, receive, dressed)

    def _dress(self, message: MutableMapping[str, Any], asset: bool) -> None:
        headers = MutableHeaders(scope=message)
        for name, value in self._headers.items():
            headers[name] = value
        headers["cache-control"] = "public, max-age=3600" if asset and message["status"] < 400 else "no-store"
