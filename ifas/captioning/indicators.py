"""What the measurements show, and which attack medium it suggests.

Thresholds are set by hand, from what a measurement means and how it spreads over the synthetic demo pictures and over
400 portraits of real people (docs/captions.md); no optimiser fitted them to labels. Only the chance of a border is
fitted, to edges of the simulator: see `edges`. So the embedded captioner is sometimes wrong, like any general
captioner, and the filter of Algorithm 1 has work to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ifas.captioning.ramp import ramp

#: An indicator is said from this strength on.
SAID_FROM = 0.5

#: A medium is named from this score on, and only if it leads the next one by `LEAD`.
NAMED_FROM = 0.5
LEAD = 0.1


@dataclass(frozen=True, kw_only=True)
class Indicator:
    """One thing that can be seen.

    Attributes:
        strength: measurements -> 0 (absent) .. 1 (plain).
        speaks_for: spoof type -> weight; negative speaks against it.
        phrases: ways to say it, a clause each. They name no medium.
    """

    name: str
    strength: Callable[[Mapping[str, float]], float]
    speaks_for: Mapping[str, float]
    phrases: tuple[str, ...]


def _even(m: Mapping[str, float]) -> float:
    """How far the colour of the face is one even tone. Only then do highlights and a step at the neck speak of a mask:
    teeth, eyes, beards and collars of real people are brighter spots and larger steps than those of masks."""
    return ramp(m["skin_variation"], 0.055, 0.035)


INDICATORS: tuple[Indicator, ...] = (
    Indicator(
        name="waves",
        strength=lambda m: ramp(m["wave_peak"], 18.0, 32.0),
        speaks_for={"replay": 0.45, "mask": -0.3},
        phrases=("fine wave patterns cross the picture", "rippling stripes run over the picture"),
    ),
    Indicator(
        name="grid",
        strength=lambda m: min(ramp(m["fine_over_coarse"], 0.5, 0.9), ramp(m["dot_peak"], 5.0, 7.0)),
        speaks_for={"replay": 0.35, "print": 0.3, "mask": -0.3},
        phrases=("a fine regular grid covers everything", "tiny dots in even rows cover everything"),
    ),
    Indicator(
        name="dark border",
        strength=lambda m: ramp(m["dark_border"], 0.45, 0.95) * (m["dark_border"] > m["bright_border"]),
        speaks_for={"replay": 0.6, "mask": -0.4},
        phrases=("a straight dark frame runs beside the head", "a dark straight rim cuts the picture"),
    ),
    Indicator(
        name="bright border",
        strength=lambda m: ramp(m["bright_border"], 0.4, 0.9) * (m["bright_border"] >= m["dark_border"]),
        speaks_for={"print": 0.5, "mask": -0.3},
        phrases=("a straight bright edge runs beside the head", "a bright straight rim cuts the picture"),
    ),
    Indicator(
        name="lifted black",
        strength=lambda m: min(ramp(m["black_level"], 0.28, 0.42), ramp(m["gamut"], 0.095, 0.06)),
        speaks_for={"print": 0.1},
        phrases=("the colours are washed out and black looks grey", "the picture is flat and nothing in it is black"),
    ),
    Indicator(
        name="pale colours",
        strength=lambda m: ramp(m["gamut"], 0.095, 0.055),
        speaks_for={"print": 0.3, "replay": -0.1},
        phrases=("the colours are weak", "hardly any strong colour is left"),
    ),
    Indicator(
        name="even skin",
        strength=lambda m: ramp(m["skin_variation"], 0.042, 0.028),
        speaks_for={"mask": 0.3, "mannequin": 0.3},
        phrases=("the surface of the face is one even colour", "the face has the same colour all over"),
    ),
    Indicator(
        name="gloss",
        strength=lambda m: min(ramp(m["gloss"], 0.085, 0.165), _even(m)),
        speaks_for={"mask": 0.3, "print": -0.1},
        phrases=("small sharp highlights lie on the face", "the face shines like plastic"),
    ),
    Indicator(
        name="neck step",
        strength=lambda m: min(ramp(m["neck_step"], 0.02, 0.10), _even(m)),
        speaks_for={"mask": 0.45, "mannequin": -0.3},
        phrases=("the face and the neck differ in colour", "the colour changes at the rim of the face"),
    ),
    Indicator(
        name="no skin texture",
        strength=lambda m: ramp(m["skin_texture"], 0.0045, 0.0030),
        speaks_for={"mannequin": 0.5},
        phrases=("the face is smooth as if moulded", "no pores or fine lines can be seen"),
    ),
    Indicator(
        name="skin detail",
        strength=lambda m: min(ramp(m["skin_variation"], 0.03, 0.05), ramp(m["gloss"], 0.20, 0.14)),
        speaks_for={"mask": -0.1},
        phrases=("the skin shows natural shades and fine detail", "lips, cheeks and skin differ softly in colour"),
    ),
    Indicator(
        name="depth",
        strength=lambda m: min(
            ramp(m["face_sharpness"] - m["surround_sharpness"], 0.15, 0.45),
            ramp(max(m["bright_border"], m["dark_border"]), 0.6, 0.4),
        ),
        speaks_for={},
        phrases=("the background lies out of focus behind the head", "the head stands clear of a soft background"),
    ),
)


def strengths(values: Mapping[str, float]) -> dict[str, float]:
    """Strength of every indicator, in the order of `INDICATORS`."""
    return {indicator.name: indicator.strength(values) for indicator in INDICATORS}


def medium_scores(strength: Mapping[str, float]) -> dict[str, float]:
    """Score of every spoof type that any indicator speaks for."""
    scores: dict[str, float] = {}
    for indicator in INDICATORS:
        for spoof_type, weight in indicator.speaks_for.items():
            scores[spoof_type] = scores.get(spoof_type, 0.0) + weight * strength[indicator.name]
    return scores


def medium_suggested(scores: Mapping[str, float]) -> str | None:
    """The spoof type whose medium a caption names, or None where the picture suggests none clearly."""
    best, *others = sorted(scores, key=lambda name: -scores[name])
    leads = not others or scores[best] - scores[others[0]] >= LEAD
    return best if scores[best] >= NAMED_FROM and leads else None


def medium_chances(scores: Mapping[str, float], temperature: float) -> dict[str | None, float]:
    """Chance of each spoof type, and of None, to be named: softmax of the scores, where silence scores `NAMED_FROM`."""
    import math

    pairs: list[tuple[str | None, float]] = [(None, NAMED_FROM), *scores.items()]
    top = max(score for _, score in pairs)
    odds = {name: math.exp((score - top) / temperature) for name, score in pairs}
    total = sum(odds.values())
    return {name: value / total for name, value in odds.items()}
