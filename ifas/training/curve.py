"""The loss curve: one JSON line per step, with judgment, interpretation and each spoof type."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.errors import TrainingError

if TYPE_CHECKING:
    from ifas.training.step import StepLosses

CURVE_FILE = "curve.jsonl"
#: Steps over which `left_plateau` smooths.
WINDOW = 8


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


def left_plateau(curve: list[dict[str, Any]], live_share: float, window: int = WINDOW) -> int | None:
    """The step from which on the judgment loss stays below that of a model that ignores its images.

    Such a model can only learn how often bona fide and attacks are drawn: its loss is the entropy of these shares.
    The judgment loss is smoothed by the mean over the last `window` steps that have one.

    Args:
        curve: lines of a whole training.
        live_share: share of bona fide among the draws, between 0 and 1.
        window: of the smoothing.

    Returns:
        None where the smoothed loss of the last step is not below.
    """
    entropy = -live_share * math.log(live_share) - (1 - live_share) * math.log(1 - live_share)
    lines = [line for line in curve if "judgment" in line]
    since = None
    for i, line in enumerate(lines):
        last = [past["judgment"] for past in lines[max(0, i + 1 - window) : i + 1]]
        if sum(last) / len(last) >= entropy:
            since = None
        elif since is None:
            since = int(line["step"])
    return since


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
