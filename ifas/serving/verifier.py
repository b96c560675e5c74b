"""From the bytes of an image to an answer: the part of the service that does not depend on HTTP."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from ifas.core.errors import GateError, ImageRefused
from ifas.core.imaging import decode
from ifas.faces.face import Face
from ifas.serving.contents import check_contents, digest_below
from ifas.serving.settings import MODEL_DIR, ServingSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# A child of BentoML's logger: its handlers and levels apply.
log = logging.getLogger("bentoml.ifas")


class Answer(BaseModel):
    """What the service says of one image."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    verdict: Literal["live", "spoof"]
    score: float = Field(description="probability of bona fide, 0 to 1")
    threshold: float = Field(description="a score of at least this is live")
    spoof_type: str = Field(
        description="live; or the attack that it most likely is, the only one that the explanation can name: print, "
        "replay, mask, mannequin"
    )
    spoof_type_confidence: float | None = Field(
        description="that it is this attack, if it is one, 0 to 1; null after the verdict live"
    )
    explanation: str = Field(description="empty when it was not asked for")
    model_version: str
    candidate: str
    image_sha256: str = Field(description="id of the image in logs; the image itself is not kept")


class JudgedLike(Protocol):
    """One image's probability of bona fide, and the attack and explanation of the verdict."""

    @property
    def score(self) -> float: ...
    @property
    def spoof_type(self) -> str: ...
    @property
    def confidence(self) -> float | None: ...
    @property
    def text(self) -> str: ...


class Judging(Protocol):
    """The interface of a model that the verifier needs, such as `ifas.model.judge.Judge`."""

    def find(self, picture: npt.NDArray[np.uint8]) -> Face:
        """The face of an image. Raises FaceRefused where there is none that can be judged."""
        ...

    def answer(self, faces: Sequence[Face], threshold: float, *, explain: bool) -> Sequence[JudgedLike]:
        """Per face: probability of bona fide, attack after the verdict at a threshold, and explanation if asked."""
        ...


class Verifier:
    """Judges images at a frozen threshold."""

    def __init__(self, judge: Judging, settings: ServingSettings) -> None:
        self.judge = judge
        self.settings = settings

    @classmethod
    def load(cls, folder: Path) -> Verifier:
        """The verifier of a Bento's source folder, which holds `serving.json` and the model.

        Raises:
            GateError: something in the folder is not what was packaged, or the model is not the approved one.
            ConfigError: a file is missing or damaged.
        """
        contents = check_contents(folder)
        settings = ServingSettings.read(folder)
        found = digest_below(contents, MODEL_DIR)
        if found != settings.model_sha256:
            raise GateError(
                f"the model in this Bento has SHA-256 {found[:12]}, candidate {settings.candidate} was approved with "
                f"{settings.model_sha256[:12]}",
                "package the candidate again",
            )
        from ifas.model.judge import Judge

        judge = Judge.load(folder / MODEL_DIR, calibration=settings.calibration)
        return cls(judge, settings)

    def verify(self, data: bytes, *, explain: bool = True) -> Answer:
        """Judges one encoded image.

        Raises:
            ImageRefused: see `ifas.core.imaging.decode`.
            FaceRefused: no face that can be judged was found; there is no verdict then.
        """
        begin = time.perf_counter()
        image_id = hashlib.sha256(data).hexdigest()
        try:
            face = self.judge.find(decode(data, self.settings.limits))
        except ImageRefused as refused:
            log.info("refused id=%s reason=%s: %s", image_id[:16], refused.reason, refused.what)
            raise
        threshold = self.settings.threshold
        judged = self.judge.answer([face], threshold, explain=explain)[0]
        answer = Answer(
            verdict="live" if judged.score >= threshold else "spoof",
            score=judged.score,
            threshold=threshold,
            spoof_type=judged.spoof_type,
            spoof_type_confidence=judged.confidence,
            explanation=judged.text,
            model_version=self.settings.model_version,
            candidate=self.settings.candidate,
            image_sha256=image_id,
        )
        seconds = time.perf_counter() - begin
        log.info(
            "verify id=%s verdict=%s score=%.4f seconds=%.3f", image_id[:16], answer.verdict, answer.score, seconds
        )
        return answer
