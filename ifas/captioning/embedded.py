"""The embedded general captioner: C_G of Algorithm 1 where no large captioner can run.

It composes English sentences from measurements on the picture alone. It does not see the label. It names a medium only
where the measurements suggest one, so it misses some attacks and is sometimes wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from ifas.captioning.indicators import (
    INDICATORS,
    SAID_FROM,
    medium_chances,
    medium_scores,
    medium_suggested,
    strengths,
)
from ifas.captioning.media import MEDIA
from ifas.captioning.protocol import Caption

if TYPE_CHECKING:
    from ifas.captioning.kept import Kept
    from ifas.captioning.measure import Measured
    from ifas.captioning.pictures import Pictures
    from ifas.captioning.protocol import Losses, SpoofAware
    from ifas.core.config import CaptionConfig

_OPENINGS = (
    "A face before {a} {wall} background",
    "The face of a person against {a} {wall} wall",
    "A face with {a} {wall} wall behind it",
)

_CLOTHES = ("{a} {top} top", "{top} clothes")

#: Cues said in one caption at most: the answer of the model has to stay short.
MOST_CUES = 2


class EmbeddedCaptioner:
    """Composes captions from measurements. Wording varies from picture to picture and is fixed by its pixels."""

    name = "embedded"

    def caption(self, pictures: Sequence[Measured]) -> list[Caption]:
        """One caption per picture; `evidence` holds every measurement of `measure.MEASUREMENTS`."""
        return [_describe(one) for one in pictures]

    def sample(self, pictures: Sequence[Measured], count: int, config: CaptionConfig) -> list[list[str]]:
        """Captions whose medium is drawn from the distribution that its scores give at `config.temperature`."""
        return [_drawn(one, count, config) for one in pictures]

    def tune(self, pictures: Pictures, kept: Kept, config: CaptionConfig) -> tuple[SpoofAware, Losses]:
        """C_S: this captioner, with the choice of the medium tuned on the kept captions."""
        from ifas.captioning.spoof_aware import imitation

        return imitation(pictures, kept, config)


def _describe(measured: Measured) -> Caption:
    strength = strengths(measured.values)
    medium = medium_suggested(medium_scores(strength))
    return Caption(_text(measured, strength, medium, _dice(_pixels(measured))), dict(measured.values))


def _drawn(measured: Measured, count: int, config: CaptionConfig) -> list[str]:
    strength = strengths(measured.values)
    chances = medium_chances(medium_scores(strength), config.temperature)
    pixels = _pixels(measured)
    texts = []
    for n in range(count):
        rng = _dice(pixels + f"{config.seed} {n}".encode())
        (medium,) = rng.choices(list(chances), list(chances.values()))
        texts.append(_text(measured, strength, medium, rng))
    return texts


def _pixels(measured: Measured) -> bytes:
    return hashlib.sha256(measured.picture.tobytes()).digest()


def _dice(key: bytes) -> Random:
    return Random(key)  # noqa: S311 - picks words, guards nothing


def _text(measured: Measured, strength: dict[str, float], medium: str | None, rng: Random) -> str:
    sentences = [_scene(measured, rng), _cues(strength, medium, rng)]
    if medium is not None:
        sentences.append(rng.choice(MEDIA[medium]))
    return " ".join(s for s in sentences if s)


def _scene(measured: Measured, rng: Random) -> str:
    scene = measured.scene
    wall, top = scene.wall, scene.top
    text = rng.choice(_OPENINGS).format(a=_article(wall), wall=wall)
    if top:
        text += ", " + rng.choice(_CLOTHES).format(a=_article(top), top=top)
    return f"{text}, {scene.light} light."


def _cues(strength: dict[str, float], medium: str | None, rng: Random) -> str:
    """The strongest cues as one sentence; where a medium is named, those that speak for it come first."""

    def rank(name: str, speaks_for: float) -> tuple[float, float]:
        return (-speaks_for * strength[name], -strength[name])

    shown = [indicator for indicator in INDICATORS if strength[indicator.name] >= SAID_FROM]
    shown.sort(
        key=lambda indicator: rank(indicator.name, max(0.0, indicator.speaks_for.get(medium, 0.0)) if medium else 0.0)
    )
    text = " and ".join(rng.choice(indicator.phrases) for indicator in shown[:MOST_CUES])
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
