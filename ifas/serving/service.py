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
from ifas.serving.request_limits import VERIFY, RequestLimits  # noqa: E402
from ifas.serving.settings import MAX_CONCURRENCY, TIMEOUT_S, ServingSettings  # noqa: E402
from ifas.serving.verifier import Answer, Verifier  # noqa: E402

#: src/ of the Bento: this file is src/ifas/serving/service.py.
HERE = Path(__file__).resolve().parents[2]
SETTINGS = ServingSettings.read(HERE)


@bentoml.service(
    name="ifas",
    workers=1,
    traffic={"timeout": TIMEOUT_S, "max_concurrency": MAX_CONCURRENCY},
    # The access log names who asked; ours holds ids only.
    logging={"access": {"enabled": False}},
)
class AntiSpoofing:
    """Is this photo of a real person? Verdict, score and explanation for one picture."""

    def __init__(self) -> None:
        # Before the first request: /readyz does not answer until the model is loaded and proved to be the approved one.
        self.verifier = Verifier.load(HERE)

    @bentoml.api(route=VERIFY)
    def verify(self, image: Path, explain: bool = True) -> Answer:
        """Judges a picture (JPEG, PNG or WebP)."""
        try:
            return self.verifier.verify(image.read_bytes(), explain=explain)
        except ImageRefused as error:
            # A bad picture is the client's business: no traceback in our log, and the door's form of an error. BentoML
            # passes a response on as it is.
            from starlette.responses import JSONResponse

            return cast(Answer, JSONResponse({"error": error.what, "fix": error.fix}, status_code=400))


AntiSpoofing.add_asgi_middleware(RequestLimits, max_body_bytes=SETTINGS.max_body_bytes)  # type: ignore[attr-defined]
