"""The trigger over HTTP: `POST /events`. 202 means that the event is on the disk.

Events that come in at the same time are kept by one transaction: the disk is waited for once for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

from ifas.core.errors import IfasError, LaunchError
from ifas.trigger import events
from ifas.trigger.dispatch import Dispatcher
from ifas.trigger.limiter import Limiter
from ifas.trigger.rules import Trigger
from ifas.trigger.signature import Unsigned, keys_of_each, verify
from ifas.trigger.store import AT_ONCE, Arrival, Store

log = logging.getLogger("ifas.trigger")

MAX_BODY_BYTES = 64 * 2**10
BODY_SECONDS = 10.0
#: Events that may wait to be kept; further ones get 503.
MAX_WAITING = 1000
MAX_CONNECTIONS = 1024
#: For the start that is under way at the end. One that is cut off is found by the next service.
END_SECONDS = 30.0


class Refused(Exception):
    """A request that gets an answer other than 202."""

    def __init__(self, status: int, error: str, fix: str, wait_s: int = 1) -> None:
        super().__init__(error)
        self.status = status
        self.wait_s = wait_s
        self.body = {"error": error, "fix": fix}


class Intake:
    """Keeps arrivals, many by one transaction."""

    def __init__(self, store: Store, trigger: Trigger, kept: Callable[[], None]) -> None:
        self._store = store
        self._trigger = trigger
        self._kept = kept
        self._waiting: asyncio.Queue[tuple[Arrival, asyncio.Future[str]]] = asyncio.Queue(MAX_WAITING)

    async def keep(self, arrival: Arrival) -> str:
        """Returns when the arrival is on the disk, with what `Store.keep` says of it."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        try:
            self._waiting.put_nowait((arrival, answer))
        except asyncio.QueueFull:
            raise Refused(503, f"{MAX_WAITING} events wait to be kept", "send it again, after a second") from None
        return await answer

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < AT_ONCE and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            arrivals = [arrival for arrival, _ in batch]
            try:
                said = await asyncio.to_thread(self._store.keep, arrivals, self._trigger, datetime.now(UTC))
            except Exception as error:  # whatever it was, none of them is kept, and each sender is told
                log.exception("%d events could not be kept", len(batch))
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(
                            Refused(503, f"the event could not be kept: {type(error).__name__}", "send it again, later")
                        )
                continue
            for (_, answer), one in zip(batch, said, strict=True):
                if not answer.done():  # its client may be gone
                    answer.set_result(one)
            self._kept()


class Service:
    """The ASGI application.

    Raises:
        ConfigError: a sender's secret is missing, or another's, too.
    """

    def __init__(self, store: Store, trigger: Trigger, dispatcher: Dispatcher) -> None:
        self._store = store
        self._trigger = trigger
        self._dispatcher = dispatcher
        self._keys = keys_of_each({name: sender.secret for name, sender in trigger.senders.items()})
        self._intake = Intake(store, trigger, dispatcher.wake)
        self._limiter = Limiter(trigger.clients.per_second, trigger.clients.burst)

    def app(self) -> Any:
        """With its routes: /events, /livez, /readyz."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        return Starlette(
            routes=[
                Route("/events", self._events, methods=["POST"]),
                Route("/livez", self._live),
                Route("/readyz", self._ready),
            ],
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Any) -> AsyncIterator[None]:
        keeping = asyncio.create_task(self._intake.run())
        self._dispatcher.start()
        try:
            yield
        finally:
            self._dispatcher.stop()
            keeping.cancel()
            await asyncio.to_thread(self._dispatcher.join, END_SECONDS)

    async def _live(self, _request: Any) -> Any:
        from starlette.responses import PlainTextResponse

        return PlainTextResponse("ok")

    async def _ready(self, _request: Any) -> Any:
        from starlette.responses import PlainTextResponse

        try:
            await asyncio.to_thread(self._store.ping)
        except IfasError as error:
            return PlainTextResponse(error.what, 503)
        trouble = self._dispatcher.trouble()
        return PlainTextResponse(trouble or "ok", 503 if trouble else 200)

    async def _events(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        try:
            self._may_send(request)
            body = await _body(request)
            headers = {name.lower(): value for name, value in request.headers.items()}
            arrival = self._arrival(headers, body)
            answer = await self._intake.keep(arrival)
            if arrival.event is None:
                raise Refused(422, arrival.refused, "correct the event; this one was not kept")
        except Refused as refused:
            log.info("refused %d: %s", refused.status, refused)
            closing = {"connection": "close"} if refused.status in (408, 413, 429) else {}
            waiting = {"retry-after": str(refused.wait_s)} if refused.status in (429, 503) else {}
            return JSONResponse(refused.body, refused.status, headers={**closing, **waiting})
        return JSONResponse({"id": arrival.envelope.id, "kept": answer}, 202)

    def _may_send(self, request: Any) -> None:
        """Before anything is read or computed. Raises Refused."""
        address = request.client.host if request.client else ""
        if wait := self._limiter.wait(address):
            limit = self._trigger.clients
            raise Refused(
                429, f"{address} sends more than {limit.per_second:g} requests a second", "wait", math.ceil(wait)
            )

    def _arrival(self, headers: dict[str, str], body: bytes) -> Arrival:
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        wanted = "application/json" if events.is_binary(headers) else events.STRUCTURED
        if kind != wanted:
            raise Refused(415, f"content type {kind!r} is not accepted", f"send one event as {wanted}")
        sender = self._sender(headers, body)
        try:
            envelope, data = events.read(headers, body)
        except events.Unreadable as error:
            raise Refused(400, str(error), "send a CloudEvent 1.0 with id, source, type and time") from error
        if not self._trigger.may_send(sender, envelope):
            raise Refused(
                403, f"{sender} may not send {envelope.type} of {envelope.source}", "add it to senders in the file"
            )
        try:
            return Arrival(sender, envelope, events.checked(envelope, data, datetime.now(UTC)))
        except events.Invalid as error:
            return Arrival(sender, envelope, None, str(error))

    def _sender(self, headers: dict[str, str], body: bytes) -> str:
        said = ""
        for sender, keys in self._keys.items():
            try:
                verify(headers, body, keys)
            except Unsigned as error:
                said = str(error)
            else:
                return sender
        raise Refused(
            401, f"the signature is not valid: {said}", "sign it as Standard Webhooks does; see docs/triggers.md"
        )


async def _body(request: Any) -> bytes:
    from starlette.requests import ClientDisconnect

    too_large = Refused(413, f"the body is larger than {MAX_BODY_BYTES} bytes", "send a reference, not the data")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise too_large
    except TimeoutError:
        raise Refused(408, f"the body was not complete within {BODY_SECONDS:g} s", "send it faster") from None
    except ClientDisconnect:
        raise Refused(400, "the client went away", "send the whole body") from None
    return bytes(body)


def serve(service: Service, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves until SIGTERM or Ctrl-C; then no event is taken any more, and the start under way is waited for.

    Args:
        ready: called with the URL when it listens.

    Raises:
        LaunchError: the address can't be used.
    """
    import uvicorn

    try:
        listening = socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise LaunchError(f"{host}:{port} can't be listened on: {error.strerror}", "give another --port") from error
    config = uvicorn.Config(
        service.app(),
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=15,
    )
    ready(f"http://{host}:{listening.getsockname()[1]}")
    uvicorn.Server(config).run(sockets=[listening])
