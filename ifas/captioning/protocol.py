"""What a captioner is: it says what is in a picture (C_G of Algorithm 1), and is tuned to a spoof-aware one (C_S)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

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
        """One caption per picture, in order; the same picture always gets the same caption.

        Captions describe the picture, never who the person is, nor age, gender or ethnicity.
        """
        ...

    def tune(
        self, pictures: Pictures, texts: Sequence[str], kept: npt.NDArray[np.bool_], config: CaptionConfig
    ) -> tuple[SpoofAware, Losses]:
        """C_S = finetune(C_G, D_S), and its losses. Called once, after all general captions are made.

        A captioner without weights of its own hands this on to `spoof_aware.imitation`.

        Args:
            pictures: the tuning pictures, bona fide ones included.
            texts: what this captioner said of them.
            kept: bool (n,), which of them form D_S.
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
