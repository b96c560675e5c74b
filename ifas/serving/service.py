"""The BentoML service. Imported inside a Bento only, where `serving.json` and the model lie beside the code.

No postponed annotations here: BentoML reads the signature of `verify`.
"""

import os
from pathlib import Path
from typing import cast

from ifas.core.environment import prepare

prepare()
# torch would otherwise count the cores of the machine, not those this process may use.
os.environ.setdefault("OMP_NUM_THREADS", str(min(4, len(os.sched_getaffinity(0)))))

import bentoml  # noqa: E402

from ifas.core.errors import ImageRefused  # noqa: E402
from ifas.serving.card import CARD_FILE  # noqa: E402
from ifas.serving.connections import ConnectionLimits, affordable  # noqa: E402
from ifas.serving.pages import VERIFY, Metrics, RequestMetrics, pages  # noqa: E402
from ifas.serving.request_limits import RequestLimits  # noqa: E402
from ifas.serving.settings import READ_SECONDS, TIMEOUT_S, ServingSettings  # noqa: E402
from ifas.serving.verifier import Answer, Verifier  # noqa: E402

#: src/ of the Bento: this file is src/ifas/serving/service.py.
HERE = Path(__file__).resolve().parents[2]
SETTINGS = ServingSettings.read(HERE)
TRAFFIC = SETTINGS.traffic
METRICS = Metrics()

# uvicorn would take a client's address from X-Forwarded-For; ConnectionLimits needs that of the connection.
os.environ["FORWARDED_ALLOW_IPS"] = ""


@bentoml.service(
    name="ifas",
    workers=1,
    # No `max_concurrency`: BentoML takes a slot before the body is complete. RequestLimits has the limit.
    traffic={"timeout": TIMEOUT_S},
    # When no file can be opened, asyncio logs a traceback for each connection of the backlog, once a second.
    backlog=512,
    # BentoML's metrics keep a label for every path that a client makes up. RequestMetrics replaces them.
    metrics={"enabled": False},
    # The access log has clients' addresses; the verifier's log has only ids of images.
    logging={"access": {"enabled": False}},
)
class AntiSpoofing:
    """Is this photo of a real person? Verdict, score and explanation for one image."""

    def __init__(self) -> None:
        # Before the first request: /readyz does not answer until the model is loaded and has the hash in serving.json.
        self.verifier = Verifier.load(HERE)

    @bentoml.api(route=VERIFY)
    def verify(self, image: Path, explain: bool = True) -> Answer:
        """Judges an image (JPEG, PNG or WebP)."""
        try:
            return self.verifier.verify(image.read_bytes(), explain=explain)
        except ImageRefused as error:
            # The client's fault: no traceback in the log, and an error in the form of RequestLimits. BentoML passes a
            # response on as it is.
            from starlette.responses import JSONResponse

            body = {"error": error.what, "fix": error.fix, "reason": error.reason}
            return cast(Answer, JSONResponse(body, status_code=400))


AntiSpoofing.mount_asgi_app(  # type: ignore[attr-defined]
    pages(METRICS, (HERE / CARD_FILE).read_text("utf-8") if SETTINGS.publish_card else None)
)
# The first is the outermost.
AntiSpoofing.add_asgi_middleware(  # type: ignore[attr-defined]
    ConnectionLimits,
    header_seconds=TRAFFIC.header_seconds,
    answer_seconds=TIMEOUT_S + READ_SECONDS,
    max_connections=affordable(TRAFFIC.max_connections),
)
AntiSpoofing.add_asgi_middleware(RequestMetrics, metrics=METRICS)  # type: ignore[attr-defined]
AntiSpoofing.add_asgi_middleware(  # type: ignore[attr-defined]
    RequestLimits,
    max_body_bytes=SETTINGS.max_body_bytes,
    max_concurrency=TRAFFIC.max_concurrency,
    body_seconds=TRAFFIC.body_seconds,
)
