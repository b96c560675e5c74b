"""From the bytes of an image to an answer: the part of the service that does not depend on HTTP."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from ifas.core import detail
from ifas.core.errors import GateError, ImageRefused
from ifas.core.files import sha256_tree
from ifas.core.imaging import decode
from ifas.core.taxonomy import media_named
from ifas.faces.face import Face
from ifas.serving.settings import MODEL_DIR, ServingSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# A child of BentoML's logger: its handlers and levels apply.
log = logging.getLogger("bentoml.ifas")

UNKNOWN = "unknown"


class Answer(BaseModel):
    """What the service says of one image."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    verdict: Literal["live", "spoof"]
    score: float = Field(description="probability of bona fide, 0 to 1")
    threshold: float = Field(description="a score of at least this is live")
    spoof_type: str = Field(
        description="live; or the attack medium that the explanation names: print, replay, mask, mannequin; or unknown"
    )
    explanation: str = Field(description="empty when it was not asked for")
    model_version: str
    candidate: str
    image_sha256: str = Field(description="id of the image in logs; the image itself is not kept")


class JudgedLike(Protocol):
    """One image's probability of bona fide, and the explanation of the verdict."""

    @property
    def score(self) -> float: ...
    @property
    def text(self) -> str: ...


class Judging(Protocol):
    """The interface of a model that the verifier needs, such as `ifas.model.judge.Judge`."""

    def judge(self, faces: Sequence[Face]) -> npt.NDArray[np.float64]:
        """Probability of bona fide per face."""
        ...

    def answer(self, faces: Sequence[Face], threshold: float) -> Sequence[JudgedLike]:
        """The same probability and the explanation of the verdict at a threshold, per face."""
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
            GateError: the model has another hash than the approved one that `serving.json` names. Who can change both
                files is not found out here.
            ConfigError: a file is missing or damaged.
        """
        settings = ServingSettings.read(folder)
        found = sha256_tree(folder / MODEL_DIR)
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
            ImageWithoutDetail: it shows a flat colour, a gradient or noise, which a model would score like any image.
        """
        begin = time.perf_counter()
        image_id = hashlib.sha256(data).hexdigest()
        try:
            face = Face.whole(decode(data, self.settings.limits))
            detail.check(face.picture)
        except ImageRefused as refused:
            log.info("refused id=%s reason=%s: %s", image_id[:16], refused.reason, refused.what)
            raise
        threshold = self.settings.threshold
        if explain:
            judged = self.judge.answer([face], threshold)[0]
            score, explanation = judged.score, judged.text
        else:
            score, explanation = float(self.judge.judge([face])[0]), ""
        live = score >= threshold
        answer = Answer(
            verdict="live" if live else "spoof",
            score=score,
            threshold=threshold,
            spoof_type="live" if live else _medium(explanation),
            explanation=explanation,
            model_version=self.settings.model_version,
            candidate=self.settings.candidate,
            image_sha256=image_id,
        )
        seconds = time.perf_counter() - begin
        log.info("verify id=%s verdict=%s score=%.4f seconds=%.3f", image_id[:16], answer.verdict, score, seconds)
        return answer


def _medium(explanation: str) -> str:
    named = media_named(explanation)
    return named[0] if named else UNKNOWN
