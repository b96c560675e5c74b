"""The loss curve: one JSON line per step, with judgment, interpretation and each spoof type."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.errors import TrainingError

if TYPE_CHECKING:
    from ifas.training.step import StepLosses

CURVE_FILE = "curve.jsonl"


class Curve:
    """Appends to a curve file.

    Args:
        path: of the file.
        start: lines from this step on are dropped: a resumed run writes them again.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        kept = [line for line in read(path) if line["step"] <= start] if path.is_file() else []
        beside = path.with_name(f".{path.name}.part")
        beside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        beside.replace(path)
        self.path = path
        self._began = time.monotonic()

    def add(self, step: int, losses: StepLosses) -> None:
        """One line: `step` (1-based), losses in nats per token as in `StepLosses`, and seconds since this start."""
        line: dict[str, Any] = {"step": step}
        if losses.skipped:  # JSON has no NaN
            line["skipped"] = list(losses.skipped)
        else:
            line |= {
                "loss": losses.loss,
                "judgment": losses.judgment,
                "interpretation": losses.interpretation,
                "species": {name: list(means) for name, means in losses.by_species.items()},
            }
        line["seconds"] = round(time.monotonic() - self._began, 3)
        with self.path.open("a", encoding="utf-8") as f:
            f.write(json.dumps(line) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All lines of a curve; an incomplete last line, as a kill leaves it, is ignored.

    Raises:
        TrainingError: another line is not JSON.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    curve = []
    for number, line in enumerate(lines):
        try:
            curve.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines) - 1:
                raise TrainingError(f"{path}, line {number + 1} is not JSON", "remove the run folder") from error
    return curve
