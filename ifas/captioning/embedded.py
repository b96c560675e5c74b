"""The embedded general captioner: C_G of Algorithm 1 where no large captioner can run.

It composes English sentences from measurements on the picture alone. It does not see the label. It names a medium only
where the measurements suggest one, so it misses some attacks and is sometimes wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from ifas.captioning.indicators import INDICATORS, SAID_FROM, medium_scores, medium_suggested, strengths
from ifas.captioning.protocol import Caption
from ifas.captioning.scene import background_colour, light_word, top_colour

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

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

#: Spoof type -> sentences that name its medium; each holds words of one spoof type only.
_MEDIA: dict[str, tuple[str, ...]] = {
    "print": (
        "It looks like a photo printed on paper.",
        "This seems to be a sheet of paper with a face on it.",
        "It may be a printed photo.",
    ),
    "replay": (
        "It looks like a photo of a screen.",
        "This seems to be a face on the screen of a device.",
        "It may be a picture on a display.",
    ),
    "mask": (
        "It looks like a mask.",
        "This seems to be a person who wears a mask.",
        "It may be a mask over the face.",
    ),
    "mannequin": ("It looks like a mannequin.", "This seems to be a dummy."),
}

#: Cues said in one caption at most: the answer of the model has to stay short.
MOST_CUES = 2


class EmbeddedCaptioner:
    """Composes captions from measurements. Wording varies from picture to picture and is fixed by its pixels."""

    name = "embedded"

    def caption(self, pictures: Sequence[Measured]) -> list[Caption]:
        """One caption per picture; `evidence` holds every measurement of `measure.MEASUREMENTS`."""
        return [_describe(one) for one in pictures]

    def tune(
        self, pictures: Pictures, texts: Sequence[str], kept: npt.NDArray[np.bool_], config: CaptionConfig
    ) -> tuple[SpoofAware, Losses]:
        """C_S: a small network imitates this captioner and is tuned on the kept captions."""
        from ifas.captioning.spoof_aware import imitation

        return imitation(pictures, texts, kept, config)


def _describe(measured: Measured) -> Caption:
    rng = Random(hashlib.sha256(measured.picture.tobytes()).digest())  # noqa: S311 - picks words, guards nothing
    strength = strengths(measured.values)
    medium = medium_suggested(medium_scores(strength))
    sentences = [_scene(measured, rng), _cues(strength, medium, rng)]
    if medium is not None:
        sentences.append(rng.choice(_MEDIA[medium]))
    return Caption(text=" ".join(s for s in sentences if s), evidence=dict(measured.values))


def _scene(measured: Measured, rng: Random) -> str:
    wall = background_colour(measured.view)
    text = rng.choice(_OPENINGS).format(a=_article(wall), wall=wall)
    top = top_colour(measured.view)
    if top is not None:
        text += ", " + rng.choice(_CLOTHES).format(a=_article(top), top=top)
    return f"{text}, {light_word(measured.values, measured.view)} light."


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
