"""`python -m benchmarks.alignment [SEEDS]`: negative supervision against its controls, on drawn images.

The tiny model first learns captions that are noisy as those of Algorithm 1 are: they leave cues out, one in eight names
another attack, one in eight claims a cue that is not there. Then it goes on, from the same weights, for the same steps:

- *continual*: on the same captions (chosen answers only);
- *generic*: captions and, in equal share, whether a living person is there, of every image with a rejected answer
  (nSFT without its codebook);
- *nSFT*: captions and, in equal share, the codebook's corrective turns.

Measured on development people that nobody trained on, greedy, without caption noise; what is drawn is the evidence. The
intervals are paired, to the first stage and to *continual*, over the people of all seeds.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.figure import figure
from ifas.captioning.specialists import specialists
from ifas.core.claims import Cue, Fact, Known
from ifas.core.config import load
from ifas.model.build import load as load_model
from ifas.training.alignment.answers import Answer, Respondent
from ifas.training.alignment.codebook import corrections
from ifas.training.alignment.examples import Example, faces
from ifas.training.alignment.mixture import Corrective, correctives, mixture
from ifas.training.alignment.report import MEASURES, compare
from ifas.training.alignment.stage import second_stage
from ifas.training.alignment.turns import turn
from ifas.training.job import FINAL, Job, Row
from ifas.training.loop import run

CUES = {name: Cue(name, one.clause, one.words, one.supports) for name, one in specialists().items()}
#: Kind -> the cues that can be drawn on it, and sentences that name its medium.
KINDS = {
    "live": (("depth",), ("A person looks at the camera.", "A person in front of a wall.")),
    "print": (("paper margin", "gamut"), ("A face on printed paper.", "It looks like a sheet of paper.")),
    "replay": (("bezel", "recapture"), ("A face on a screen.", "A phone screen shows a face.")),
    "mask": (("specular", "layering"), ("A mask covers the face.", "A person wears a mask.")),
}
TRAIN, DEV = 240, 160
MARGIN = 0.03
SETTINGS = (
    "train.workers=1",
    "train.batch=12",
    "train.steps=600",
    "train.checkpoint_every=100000",
    "train.augment=false",
    "model.vision.lr=0.002",
    "model.language.lr=0.006",
    "model.max_answer_tokens=40",
    "model.name_attack=false",  # else a phrase names the attack by its label, and no caption could name it wrongly
    "align.steps=300",
    "align.lr_factor=0.5",
)


@dataclass(frozen=True)
class Drawn:
    """Images by row; an ImageSource. The shard names the seed."""

    def read(self, shard: str, row: int) -> bytes:
        return encoded(shard, row)


@cache
def encoded(shard: str, row: int) -> bytes:
    """PNG bytes of a row."""
    picture = draw(np.random.default_rng([int(shard), row, 7]), *scene(int(shard), row))
    return bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())


def scene(seed: int, row: int) -> tuple[str, tuple[str, ...]]:
    """Kind and cues of a row."""
    kind = tuple(KINDS)[row % len(KINDS)]
    rng = np.random.default_rng([seed, row])
    return kind, tuple(cue for cue in KINDS[kind][0] if rng.random() < 0.6)


def draw(rng: np.random.Generator, kind: str, cues: Sequence[str], size: int = 64) -> Any:
    """One image, uint8 RGB. Kinds differ in faint tones, cues are drawn plainly."""
    image = cv2.resize(rng.uniform(60, 150, (7, 7, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, 2 if "depth" in cues else 22, image.shape).astype(np.float32)
    centre = (int(rng.uniform(28, 36)), int(rng.uniform(28, 34)))
    axes = (int(rng.uniform(11, 15)), int(rng.uniform(15, 20)))
    skin = rng.uniform((130, 90, 70), (210, 160, 130))
    if kind == "mask":
        skin = 0.2 * skin + 0.8 * skin.mean()
    neck = skin + (np.array([-45, 10, 35]) if "layering" in cues else 0)
    cv2.rectangle(image, (centre[0] - 6, centre[1] + 10), (centre[0] + 6, size), tuple(map(float, neck)), -1)
    cv2.ellipse(image, centre, axes, 0, 0, 360, tuple(map(float, skin)), -1, cv2.LINE_AA)
    for side in (-1, 1):
        cv2.circle(image, (centre[0] + side * 5, centre[1] - 4), 2, (30, 25, 25), -1)
    if "specular" in cues:
        cv2.circle(image, (centre[0] - 3, centre[1] - 9), 3, (255, 255, 255), -1)
    if "gamut" in cues or kind == "print":
        image = image * (0.45 if "gamut" in cues else 0.7) + (115 if "gamut" in cues else 60)
    if kind == "replay":
        image[..., 2] += 40
    if "recapture" in cues:
        image += 26 * ((np.indices((size, size)).sum(0) % 3 == 0)[..., None] - 0.33)
    if "paper margin" in cues:
        image[:, :5] = 240
    if "bezel" in cues:
        image[:, -6:] = 8
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def example(seed: int, row: int, rng: np.random.Generator | None) -> Example:
    """An image with what is known of it, and its caption; with `rng`, a noisy one."""
    kind, cues = scene(seed, row)
    sure = {
        name: 0.9 if name in cues or (name == "medium border" and {"bezel", "paper margin"} & set(cues)) else 0.0
        for name in CUES
    }
    named, said = kind, list(cues)
    if rng is not None:
        attacks = [one for one in KINDS if one not in ("live", kind)]
        if kind != "live" and rng.random() < 1 / 8:
            named = str(rng.choice(attacks))
        said = [cue for cue in said if rng.random() < 0.7]
        if rng.random() < 1 / 8:
            said.append(str(rng.choice([cue for one in attacks for cue in KINDS[one][0]])))
    sentences = KINDS[named][1]
    clauses = [CUES[cue].clause for cue in said[:2]]
    text = " ".join([sentences[row // 4 % 2], *(f"{c[0].upper()}{c[1:]}." for c in clauses)])
    known = Known(f"{seed * 10**6 + row:064x}", kind, kind, sure)
    return Example(known, str(seed), row, None, f"{seed}-{row // 8}", text)


def job(work: Path, rows: tuple[Row, ...], seed: int, base: Path | None = None) -> Path:
    """Trains in this process; the model directory."""
    made = load("tiny", [*SETTINGS, f"train.seed={seed}"])
    model, train = second_stage(made.align, made.model, made.train) if base else (made.model, made.train)
    work.mkdir(parents=True)
    run(Job(model=model, train=train, rows=rows, images=Drawn(), run=work, base=base))
    return work / FINAL


def generic(mined: Sequence[tuple[Example, Sequence[Answer]]]) -> list[Row]:
    """Turns without the codebook: of every image with a rejected answer, only whether a living person is there."""
    facts = (Fact("live"), Fact("attack"))
    wrong = [one for one, answers in mined if any(corrections(answer, one.known, CUES) for answer in answers)]
    return [Corrective(one, turn(fact, one.known, CUES), "").row() for one in wrong for fact in facts]


def answers_of(folder: Path, dev: Sequence[Example]) -> list[Answer]:
    """Greedy answers."""
    return list(Respondent(*load_model(folder), batch=40).greedy(faces(dev, Drawn())))


def main() -> int:
    """Prints the figures; 1 where nSFT invents more than the first stage, or its verdicts may be worse than MARGIN."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ.update(
        RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=port
    )
    seeds = range(1, 1 + (int(sys.argv[1]) if sys.argv[1:] else 3))
    dev: list[Example] = []
    said: dict[str, list[Answer]] = {}
    began = time.process_time()
    for seed in seeds:
        rng = np.random.default_rng(seed)
        train = [example(seed, row, rng) for row in range(TRAIN)]
        mine = [example(seed, row, None) for row in range(10000, 10000 + DEV)]
        chosen = tuple(Row(e.known.sample_id, e.shard, e.row, e.known.spoof_type, e.caption) for e in train)
        with tempfile.TemporaryDirectory() as scratch:
            work = Path(scratch)
            first = job(work / "first", chosen, seed)
            drawn = Respondent(*load_model(first), batch=20).sample(
                faces(train, Drawn()), [e.known.sample_id for e in train], draws=3, temperature=1.0, seed=seed
            )
            mined = list(zip(train, drawn, strict=True))
            found, errors = correctives(mined, CUES, most=4)
            turns = {"continual": [], "generic": generic(mined), "nSFT": [one.row() for one in found]}
            print({"seed": seed, "errors": errors, "turns": {k: len(v) for k, v in turns.items()}}, flush=True)
            said.setdefault("before", []).extend(answers_of(first, mine))
            for arm, extra in turns.items():
                rows = mixture(chosen, extra, balance=True, weighted=False)
                folder = job(work / arm, rows, seed, base=first)
                said.setdefault(arm, []).extend(answers_of(folder, mine))
        dev += mine
        last = {
            arm: compare(mine, answers[-DEV:], answers[-DEV:], CUES, resamples=1, seed=0)
            for arm, answers in said.items()
        }
        print(
            {arm: {name: one["after"]["value"] for name, one in scores.items()} for arm, scores in last.items()},
            flush=True,
        )
    ok = True
    for name in MEASURES:
        for arm in ("continual", "generic", "nSFT"):
            one, other = (
                compare(dev, said[base], said[arm], CUES, resamples=1000, seed=0)[name]
                for base in ("before", "continual")
            )
            figure(
                f"{name}, {arm} (n = {one['after']['n']})", one["after"]["value"], "", baseline=one["before"]["value"]
            )
            print(
                json.dumps(
                    {
                        "to before": [one["difference"], one["interval"]],
                        "to continual": [other["difference"], other["interval"]],
                    }
                )
            )
            if arm == "nSFT" and name in ("invented_medium", "invented_cue", "contradiction"):
                ok &= one["difference"] <= 0
            if arm == "nSFT" and name == "verdict_accuracy":
                ok &= one["interval"][0] >= -MARGIN
    figure("CPU time", time.process_time() - began, "s", bar=480)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
