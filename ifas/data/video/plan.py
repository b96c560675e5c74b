"""Which frames of a video become images."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ifas.core.errors import ConfigError


@dataclass(frozen=True)
class FramePlan:
    """`two`: frames 6 and 6 + n // 2, as the public code of the MCIO protocols takes them; `every:K`: 0, K, 2K, ...

    Attributes:
        step: K; 0 for `two`.
    """

    step: int = 0

    @classmethod
    def parse(cls, text: str) -> FramePlan:
        """From `two` or `every:K`. Raises ConfigError."""
        if text == "two":
            return cls(0)
        match = re.fullmatch(r"every:([1-9]\d*)", text)
        if not match:
            raise ConfigError(f"frames {text!r} is no plan", "use two, or every:K with K from 1, such as every:10")
        return cls(int(match[1]))

    def __str__(self) -> str:
        return f"every:{self.step}" if self.step else "two"

    def wanted(self, frames: int) -> tuple[int, ...]:
        """Indices of a video of `frames` frames, in order. A short video gives its first and last, or its only one."""
        if frames < 1:
            return ()
        if self.step:
            return tuple(range(0, frames, self.step))
        first = min(6, frames - 1)
        return tuple(sorted({first, min(6 + frames // 2, frames - 1)}))
