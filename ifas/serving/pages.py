"""The other pages of the service: front page, metrics, and the model card if `publish_card` is set."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from ifas.serving.asgi import App, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

VERIFY = "/verify"
CARD = "/model-card"
METRICS = "/metrics"
#: Probes and metrics must answer under load.
PROBES = ("/livez", "/readyz", "/healthz", METRICS)
#: All paths that are served. Others get 404 and share one label in the metrics.
PATHS = frozenset({VERIFY, *PROBES, "/", "/docs.json", "/schema.json", CARD})
OTHER = "other"

FRONT_PAGE = f"""ifas: is this photo of a real person?

curl -F image=@face.jpg HOST{VERIFY}

/docs.json                 what {VERIFY} takes and answers (OpenAPI)
/schema.json               the same for BentoML's client
/livez /readyz {METRICS}
"""


class Metrics:
    """Counts of one server's requests, under BentoML's names, so that existing dashboards work."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        name, labels = "bentoml_service_request_", ("endpoint", "http_response_code")
        self.total = Counter(f"{name}total", "Requests answered.", labels, registry=self.registry)
        self.seconds = Histogram(
            f"{name}duration_seconds", "Seconds from header to answer.", labels, registry=self.registry
        )
        self.in_progress = Gauge(f"{name}in_progress", "Requests in progress.", labels[:1], registry=self.registry)


class RequestMetrics:
    """ASGI middleware that counts requests. BentoML's own would keep a label for every path that a client makes up.

    Args:
        app: whose requests are counted.
        metrics: where.
    """

    def __init__(self, app: App, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection event."""
        if scope["type"] != "http" or scope["path"] == METRICS:
            return await self.app(scope, receive, send)
        endpoint = scope["path"] if scope["path"] in PATHS else OTHER
        begin = time.perf_counter()
        status = 499  # the client went away

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with self.metrics.in_progress.labels(endpoint).track_inprogress():
                return await self.app(scope, receive, sent)
        except asyncio.CancelledError:
            status = 504  # BentoML's time-out answers in our place
            raise
        finally:
            self.metrics.total.labels(endpoint, status).inc()
            self.metrics.seconds.labels(endpoint, status).observe(time.perf_counter() - begin)


def pages(metrics: Metrics, card: str | None) -> Starlette:
    """The application of the pages.

    Args:
        metrics: what /metrics shows.
        card: Markdown of the model card; None: it is not published.
    """
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    async def front(_: Request) -> Response:
        return PlainTextResponse(FRONT_PAGE + (f"{CARD}\n" if card is not None else ""))

    async def shown(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def model_card(_: Request) -> Response:
        return PlainTextResponse(card, media_type="text/markdown")

    routes = [Route("/", front), Route(METRICS, shown)]
    return Starlette(routes=[*routes, Route(CARD, model_card)] if card is not None else routes)
