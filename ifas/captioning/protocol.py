"""What a captioner is, and the captioners that a run can name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ifas.core.config import CaptionConfig
from ifas.core.errors import unknown_key

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    #: One picture: uint8 RGB of shape (H, W, 3).
    Picture: TypeAlias = npt.NDArray[np.uint8]

#: Face box x, y, w, h in pixels of the picture, or None where no face was boxed.
Box: TypeAlias = tuple[float, float, float, float] | None


@dataclass(frozen=True)
class Caption:
    """One caption and the measurements on the image that it rests on."""

    text: str
    evidence: dict[str, float] = field(default_factory=dict)


class Captioner(Protocol):
    """Says in English what is in a picture. It never sees the label."""

    name: str

    def caption(self, images: Sequence[Picture], boxes: Sequence[Box]) -> list[Caption]:
        """One caption per picture, in order; the same picture always gets the same caption.

        Captions describe the picture, never who the person is, nor age, gender or ethnicity.
        """
        ...


def _embedded(_config: CaptionConfig) -> Captioner:
    from ifas.captioning.embedded import EmbeddedCaptioner

    return EmbeddedCaptioner()


def _transformers(config: CaptionConfig) -> Captioner:
    from ifas.captioning.vision_language import VisionLanguageCaptioner

    return VisionLanguageCaptioner.load(config)


#: General captioners (C_G of Algorithm 1) by name. To add one, add a line.
CAPTIONERS: dict[str, Callable[[CaptionConfig], Captioner]] = {
    "embedded": _embedded,
    "transformers": _transformers,
}


def general_captioner(config: CaptionConfig) -> Captioner:
    """The general captioner that `config.captioner` names.

    Raises:
        ConfigError: unknown name; the known ones are listed.
    """
    if config.captioner not in CAPTIONERS:
        raise unknown_key("captioner", config.captioner, CAPTIONERS)
    return CAPTIONERS[config.captioner](config)
