"""The calibrated score: what evaluation fits and serving applies, so that a score reads as a probability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Calibration(BaseModel):
    """score = 1 / (1 + exp(-(z / temperature + bias))) with z = ln(raw / (1 - raw)), where raw is the model's score.

    It never puts two images in another order, so AUC stays as it is (but for scores that are equal after rounding).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(gt=0, allow_inf_nan=False, description="above 1: the model is surer than it should be")
    bias: float = Field(allow_inf_nan=False, description="above 0: the model rejects too readily")

    def apply(self, raw: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Calibrated scores of raw ones in [0, 1]; 0 stays 0, 1 stays 1, NaN stays NaN."""
        import numpy as np

        with np.errstate(over="ignore"):
            scores: npt.NDArray[np.float64] = 1 / (1 + np.exp(-(log_odds(raw) / self.temperature + self.bias)))
        return scores


def log_odds(raw: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """ln(raw / (1 - raw)) of scores in [0, 1]; infinite at the ends."""
    import numpy as np

    given: Any = np.asarray(raw, dtype=np.float64)
    with np.errstate(divide="ignore"):
        odds: npt.NDArray[np.float64] = np.log(given) - np.log1p(-given)
    return odds
