"""Synthetic people: which morph targets, colours and clothes make up subject number n.

The sliders are artists' choices, not measurements of people: nothing about fairness follows from these identities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ifas.simulator.arrays import F32

#: Sliders with one pair of targets: `place/name|low|high`.
SLIDERS = (
    "nose/nose-hump|decr|incr",
    "nose/nose-scale-horiz|decr|incr",
    "nose/nose-scale-vert|decr|incr",
    "nose/nose-scale-depth|decr|incr",
    "nose/nose-width1|decr|incr",
    "nose/nose-width2|decr|incr",
    "nose/nose-width3|decr|incr",
    "nose/nose-point|down|up",
    "nose/nose-volume|decr|incr",
    "nose/nose-curve|concave|convex",
    "mouth/mouth-scale-horiz|decr|incr",
    "mouth/mouth-scale-vert|decr|incr",
    "mouth/mouth-upperlip-height|decr|incr",
    "mouth/mouth-lowerlip-height|decr|incr",
    "mouth/mouth-trans|down|up",
    "mouth/mouth-angles|down|up",
    "chin/chin-height|decr|incr",
    "chin/chin-width|decr|incr",
    "chin/chin-prominent|decr|incr",
    "chin/chin-bones|decr|incr",
    "head/head-fat|decr|incr",
    "head/head-scale-horiz|decr|incr",
    "head/head-scale-vert|decr|incr",
    "head/head-age|decr|incr",
    "forehead/forehead-scale-vert|decr|incr",
    "forehead/forehead-temple|decr|incr",
    "eyebrows/eyebrows-angle|down|up",
    "eyebrows/eyebrows-trans|down|up",
    "neck/neck-scale-horiz|decr|incr",
)
#: Sliders with a left and a right pair; `@` stands for the side.
PAIRED = (
    "eyes/@-eye-scale|decr|incr",
    "eyes/@-eye-height2|decr|incr",
    "eyes/@-eye-trans|in|out",
    "eyes/@-eye-corner1|down|up",
    "eyes/@-eye-corner2|down|up",
    "eyes/@-eye-bag|decr|incr",
    "eyes/@-eye-eyefold|down|up",
    "cheek/@-cheek-volume|decr|incr",
    "cheek/@-cheek-bones|decr|incr",
    "ears/@-ear-scale|decr|incr",
    "ears/@-ear-flap|decr|incr",
)
HEAD_SHAPES = ("round", "oval", "square", "triangular", "invertedtriangular", "rectangular", "diamond")
ANCESTRIES = ("african", "asian", "caucasian")
EXPRESSIONS: tuple[dict[str, float], ...] = (
    {},
    {"mouthSmileLeft": 0.55, "mouthSmileRight": 0.5, "cheekSquintLeft": 0.3, "cheekSquintRight": 0.3},
    {"browInnerUp": 0.4},
    {"jawOpen": 0.2},
    {"eyeSquintLeft": 0.35, "eyeSquintRight": 0.35},
    {"mouthPressLeft": 0.4, "mouthPressRight": 0.4},
    {"mouthSmileLeft": 0.3, "mouthSmileRight": 0.35},
)
SLIDER_SD = 0.30  # 0.45 gives caricatures
FAIR, DARK = np.array([0.62, 0.40, 0.29]), np.array([0.13, 0.065, 0.04])  # linear albedo
HAIR_COLOURS = np.array([[0.02, 0.013, 0.01], [0.06, 0.03, 0.016], [0.22, 0.12, 0.05], [0.10, 0.04, 0.018]])
GREY = np.array([0.40, 0.39, 0.37])
IRIS_COLOURS = np.array([[0.09, 0.045, 0.02], [0.06, 0.03, 0.015], [0.10, 0.17, 0.25], [0.09, 0.13, 0.06]])


@dataclass(frozen=True)
class Person:
    """One synthetic identity.

    Attributes:
        morphs: morph target -> weight.
        male: 0 to 1. age: 0 (about 25 years) to 1 (about 90).
        tone: 0 fair to 1 dark.
        skin, hair_colour, iris, shirt, lips: linear RGB.
        hair: bald, buzz, short, medium or long.
        beard: 0 none to 1 full.
        recede: how far the hairline has gone back, decimetres.
        oil: strength of the skin's highlights.
        pattern: plain, stripes or check, on the shirt.
    """

    morphs: tuple[tuple[str, float], ...]
    male: float
    age: float
    tone: float
    skin: F32
    lips: F32
    hair: str
    hair_colour: F32
    beard: float
    recede: float
    iris: F32
    shirt: F32
    pattern: str
    oil: float


def _macro(male: float, age: float, muscle: float, weight: float, mix: dict[str, float]) -> dict[str, float]:
    """MakeHuman's macro targets: ancestry x gender x age, and gender x age x muscle x weight, multilinear."""
    out: dict[str, float] = {}

    def thirds(v: float) -> dict[str, float]:
        low, high = max(0.0, 1 - 2 * v), max(0.0, 2 * v - 1)
        return {"min": low, "average": 1 - low - high, "max": high}

    for g, wg in (("female", 1 - male), ("male", male)):
        for a, wa in (("young", 1 - age), ("old", age)):
            for r, wr in mix.items():
                out[f"macrodetails/{r}-{g}-{a}"] = wg * wa * wr
            for m, wm in thirds(muscle).items():
                for w, ww in thirds(weight).items():
                    out[f"macrodetails/universal-{g}-{a}-{m}muscle-{w}weight"] = wg * wa * wm * ww
    return out


def _slider(morphs: dict[str, float], slider: str, value: float) -> None:
    name, low, high = slider.split("|")
    morphs[f"{name}-{high if value > 0 else low}"] = abs(float(np.clip(value, -1, 1)))


def _colour(v: object) -> F32:
    return np.asarray(v, dtype=np.float32)


def make_person(seed: int, subject: int) -> Person:
    """Subject number `subject` (from 0) of the population `seed`; depends on nothing else."""
    rng = np.random.default_rng([seed, subject, 1])
    male = float(subject % 2)
    age = float(rng.beta(1.3, 2.2))
    shares = rng.dirichlet(np.full(3, 0.35))
    mix = {a: float(s) for a, s in zip(ANCESTRIES, shares, strict=True)}
    morphs = _macro(male, age, float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.25, 0.75)), mix)
    for slider in SLIDERS:
        _slider(morphs, slider, rng.normal(0, SLIDER_SD))
    for slider in PAIRED:
        value = rng.normal(0, SLIDER_SD)
        for side in "lr":
            _slider(morphs, slider.replace("@", side), value + rng.normal(0, 0.06))
    morphs[f"head/head-{rng.choice(HEAD_SHAPES)}"] = float(rng.uniform(0.2, 0.7))
    for unit, weight in EXPRESSIONS[int(rng.integers(len(EXPRESSIONS)))].items():
        morphs[f"faceunits/{unit}"] = weight

    tone = float(
        rng.uniform(0, 0.35) * mix["caucasian"]
        + rng.uniform(0.15, 0.5) * mix["asian"]
        + rng.uniform(0.6, 1.0) * mix["african"]
    )
    skin = (FAIR * (1 - tone) + DARK * tone) * rng.uniform(0.95, 1.05, 3)
    grey = min(0.95, age * float(rng.uniform(0.2, 1.4)))
    dark_haired = tone > 0.45 or mix["asian"] > 0.5
    pigment = HAIR_COLOURS[0 if dark_haired else int(rng.integers(4))]
    styles = ("short", "buzz", "medium", "bald", "short") if male else ("long", "medium", "short", "long")
    bearded = male > 0.5 and rng.random() < 0.4
    redness = np.array([0.80, 0.50, 0.52]) * (1.0 if male else rng.uniform([0.95, 0.7, 0.75], [1.1, 1.0, 1.0]))
    return Person(
        morphs=tuple(morphs.items()),
        male=male,
        age=age,
        tone=tone,
        skin=_colour(skin),
        lips=_colour(skin * redness),
        hair=str(rng.choice(styles)),
        hair_colour=_colour(pigment * (1 - grey) + GREY * grey),
        beard=float(rng.uniform(0.3, 0.95)) if bearded else 0.0,
        recede=float(rng.uniform(-0.05, 0.12) + 0.25 * max(0.0, age - 0.4) * male),
        iris=_colour(IRIS_COLOURS[int(rng.integers(4 if tone < 0.3 else 2))]),
        shirt=_colour(rng.uniform(0.03, 0.6, 3) * rng.uniform(0.3, 1.0)),
        pattern=str(rng.choice(("plain", "stripes", "check"))),
        oil=float(rng.uniform(0.12, 0.45)),
    )
