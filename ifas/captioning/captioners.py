"""The general captioners that a run can name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ifas.core.errors import unknown_key

if TYPE_CHECKING:
    from ifas.captioning.protocol import Captioner
    from ifas.core.config import CaptionConfig


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
