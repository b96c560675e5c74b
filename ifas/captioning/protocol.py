"""What a captioner is: it says what is in a picture (C_G of Algorithm 1), and is tuned to a spoof-aware one (C_S)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from ifas.captioning.kept import Kept
    from ifas.captioning.measure import Measured
    from ifas.captioning.pictures import Pictures
    from ifas.core.config import CaptionConfig

#: Name of a phase of tuning -> loss of each of its steps.
Losses: TypeAlias = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Caption:
    """One caption and the measurements on the image that it rests on."""

    text: str
    evidence: dict[str, float] = field(default_factory=dict)


class Captioner(Protocol):
    """The general captioner C_G: says in English what is in a picture. It never sees the label."""

    name: str

    def caption(self, pictures: Sequence[Measured]) -> list[Caption]:
        """The likeliest caption of each picture, in order; the same picture always gets the same caption.

        Captions describe the picture, never who the person is, nor age, gender or ethnicity.
        """
        ...

    def sample(self, pictures: Sequence[Measured], count: int, config: CaptionConfig) -> list[list[str]]:
        """`count` captions of each picture, drawn by chance as likely as the captioner holds them.

        So a captioner that is unsure of the medium sometimes names the right one, and the filter finds it. What is
        drawn depends on the picture and `config.seed` alone, not on its batch. A captioner that can't draw returns its
        one caption: `[[caption.text] for caption in self.caption(pictures)]`.
        """
        ...

    def tune(self, pictures: Pictures, kept: Kept, config: CaptionConfig) -> tuple[SpoofAware, Losses]:
        """C_S = finetune(C_G, D_S), and its losses. Called once, after all general captions are made.

        A captioner without weights of its own hands this on to `spoof_aware.imitation`.

        Args:
            pictures: the tuning pictures with their general captions, bona fide ones included.
            kept: D_S, with places in `pictures`.
        """
        ...


class SpoofAware(Protocol):
    """The tuned captioner C_S."""

    def write(self, pictures: Pictures) -> list[str]:
        """One spoof-aware caption per picture, in order."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the captioner to a new folder."""
        ...
