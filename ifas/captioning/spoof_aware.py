"""C_S of Algorithm 1 for a captioner without weights: it says what C_G says, and a tuned layer chooses the medium.

Scene and cues of a caption are measured, so there is nothing to learn about them. What C_G does by hand-set rules is to
name the medium. So one linear layer from the standardised measurements to the medium is all that is tuned: it first
imitates what C_G names, then learns D_S. A network that wrote every word learned the kept captions by heart, and
claimed cues that nobody had measured.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ifas.captioning.filter import without_media
from ifas.captioning.kept import Kept
from ifas.captioning.measure import FEATURES
from ifas.captioning.media import MEDIA
from ifas.captioning.sentences import sentences
from ifas.core.errors import DataError
from ifas.core.files import read_json, replacing, write_json
from ifas.core.progress import Progress
from ifas.core.taxonomy import media_named

if TYPE_CHECKING:
    import numpy.typing as npt

    from ifas.captioning.pictures import Pictures
    from ifas.captioning.protocol import Losses
    from ifas.core.config import CaptionConfig

    Floats = npt.NDArray[np.float32]
    Doubles = npt.NDArray[np.float64]

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"
#: A feature further from the median than this many spreads counts as this far.
FURTHEST = 3.0
#: Ways to name one medium that are learned at most.
_MOST_PHRASES = 32
#: The spoof type of a caption that names no medium.
_SILENT = ""
#: Share of the features' covariance that is replaced by equal, independent variances.
_SHRINKAGE = 0.4
#: Share of the last step's direction that is kept.
_MOMENTUM = 0.9


@dataclass(frozen=True)
class Layer:
    """Which medium a picture suggests: a linear layer over standardised features.

    Attributes:
        media: spoof types, the first one "" for no medium.
        centre, scale: median and spread of each feature over the tuning pictures, (FEATURES,).
        weights: (FEATURES + 1, media); the last row is the offset.
    """

    media: tuple[str, ...]
    centre: Floats
    scale: Floats
    weights: Floats

    def logits(self, features: Floats) -> Doubles:
        """(n, media) of features (n, FEATURES)."""
        result: Doubles = self.inputs(features) @ self.weights.astype(np.float64)
        return result

    def inputs(self, features: Floats) -> Doubles:
        """Standardised features with a column of ones, (n, FEATURES + 1)."""
        scaled = np.clip((features - self.centre) / self.scale, -FURTHEST, FURTHEST).astype(np.float64)
        return np.concatenate([scaled, np.ones((len(scaled), 1))], axis=1)


class SpoofAwareCaptioner:
    """The general captioner with a tuned choice of the medium.

    Args:
        layer: chooses it.
        phrases: spoof type -> sentences of D_S that name this medium alone.
    """

    def __init__(self, layer: Layer, phrases: dict[str, tuple[str, ...]]) -> None:
        self.layer = layer
        self.phrases = phrases

    def write(self, pictures: Pictures) -> list[str]:
        """One caption per picture: its general caption without a medium, and the sentence of the one chosen here."""
        return self.rewrite(pictures.said, pictures.features)

    def rewrite(self, said: Sequence[str], features: Floats) -> list[str]:
        """Spoof-aware captions for general ones and the features (n, FEATURES) of their pictures."""
        if not len(said):
            return []
        texts = []
        for text, chosen, row in zip(said, self.layer.logits(features).argmax(axis=1), features, strict=True):
            text, _ = without_media(text)
            medium = self.layer.media[int(chosen)]
            if medium != _SILENT:
                ways = self.phrases[medium]
                dice = int.from_bytes(hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest()[:8], "big")
                text = f"{text} {ways[dice % len(ways)]}"
            texts.append(text)
        return texts

    def save(self, folder: Path) -> None:
        """Writes `model.safetensors` and `config.json` to a folder, atomically."""
        from safetensors.numpy import save_file

        layer = self.layer
        with replacing(folder) as beside:
            beside.mkdir()
            tensors = {"weights": layer.weights, "centre": layer.centre, "scale": layer.scale}
            save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, beside / _WEIGHTS)
            write_json(beside / _CONFIG, {"format": 2, "media": layer.media, "phrases": self.phrases})

    @classmethod
    def load(cls, folder: Path) -> SpoofAwareCaptioner:
        """The captioner in a folder that `save` wrote.

        Raises:
            DataError: a file is missing, or weights and config do not fit each other.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            config = read_json(folder / _CONFIG)
            tensors = load_file(folder / _WEIGHTS)
            layer = Layer(tuple(config["media"]), tensors["centre"], tensors["scale"], tensors["weights"])
            phrases = {str(medium): tuple(ways) for medium, ways in config["phrases"].items()}
            if layer.weights.shape != (FEATURES + 1, len(layer.media)) or set(phrases) != set(layer.media[1:]):
                raise ValueError("weights and config do not fit each other")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError, SafetensorError) as error:
            raise DataError(f"{folder} holds no usable captioner: {error}", "run `ifas step caption` again") from error
        return cls(layer, phrases)


def imitation(pictures: Pictures, kept: Kept, config: CaptionConfig) -> tuple[SpoofAwareCaptioner, Losses]:
    """C_S for a captioner that has no weights to tune.

    The layer first imitates what the general captions of all tuning pictures name, then learns D_S. How many steps of
    that are taken is chosen on kept captions of other subjects: each share of the subjects is held out once, and the
    step with the lowest mean loss on them is where the tuning on all of D_S stops.
    """
    progress = Progress("caption", total=config.imitate_steps + config.tune_steps, unit="steps")
    named = [media_named(text) for text in pictures.said]
    media = (_SILENT, *sorted({*kept.media, *(medium for one in named for medium in one)}))
    low, centre, high = np.percentile(pictures.features, (10, 50, 90), axis=0).astype(np.float32)
    blank = np.zeros((FEATURES + 1, len(media)), dtype=np.float32)
    layer = Layer(media, centre, np.maximum((high - low) / 2, np.float32(1e-3)), blank)

    # C_G, as this layer. It learns from features without their correlation, which the final weights take in again.
    seen, unmixed = _uncorrelated(layer.inputs(pictures.features))
    same = np.ones(len(seen))
    general = list(_descent(blank.astype(np.float64), seen, _shares(named, media), same, config, config.imitate_steps))
    start = general[-1][1] if general else blank.astype(np.float64)
    progress.advance(config.imitate_steps, phase="imitate")

    # C_S = finetune(C_G, D_S)
    mine, wanted = seen[kept.places], _shares([[medium] for medium in kept.media], media)
    curves = []
    for learned, held in kept.folds(config.held_out, config.seed):
        taken = _descent(start, mine[learned], wanted[learned], kept.weights[learned], config, config.tune_steps)
        curves.append([_loss(mine[held] @ weights, wanted[held], kept.weights[held]) for _, weights in taken])
    held_out = [float(value) for value in np.mean(curves, axis=0)] if curves else []
    steps = int(np.argmin(held_out)) + 1 if held_out else config.tune_steps
    path = list(_descent(start, mine, wanted, kept.weights, config, steps))
    weights = path[-1][1] if path else start
    progress.advance(config.tune_steps, phase="tune")

    tuned = replace(layer, weights=(unmixed @ weights).astype(np.float32))
    losses = {"imitate": [loss for loss, _ in general], "tune": [loss for loss, _ in path], "held out": held_out}
    return SpoofAwareCaptioner(tuned, _phrases(kept, media)), losses


def _uncorrelated(inputs: Doubles) -> tuple[Doubles, Doubles]:
    """Inputs (n, FEATURES + 1) without the correlation of their features, and the matrix that did it.

    Many features say nearly the same thing. Without this, descent follows what they share and finds late, or never, the
    small differences that tell ink from a display.
    """
    features = inputs[:, :-1]
    covariance = np.atleast_2d(np.cov(features, rowvar=False, bias=True))
    size = len(covariance)
    # Few pictures say little about correlations, so they are believed in part only.
    even = max(float(np.trace(covariance)) / size, 1e-6)
    values, directions = np.linalg.eigh((1 - _SHRINKAGE) * covariance + _SHRINKAGE * even * np.eye(size))
    matrix = np.eye(size + 1)
    matrix[:size, :size] = directions / np.sqrt(values)
    return inputs @ matrix, matrix


def _descent(
    start: Doubles, inputs: Doubles, wanted: Doubles, counts: Doubles, config: CaptionConfig, steps: int
) -> Iterator[tuple[float, Doubles]]:
    """Loss before, and weights after, each step of gradient descent with momentum on cross-entropy and weight decay.

    Args:
        wanted: (n, media), which share each medium should have.
        counts: (n,), how much each sample counts.
    """
    weights, direction = start, np.zeros_like(start)
    total = counts.sum()
    for _ in range(steps):
        logits = inputs @ weights
        gradient = inputs.T @ ((_softmax(logits) - wanted) * (counts / total)[:, None])
        gradient[:-1] += config.weight_decay * weights[:-1]
        direction = _MOMENTUM * direction - config.lr * gradient
        loss, weights = _loss(logits, wanted, counts), weights + direction
        yield loss, weights


def _softmax(logits: Doubles) -> Doubles:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Doubles = raised / raised.sum(axis=1, keepdims=True)
    return result


def _loss(logits: Doubles, wanted: Doubles, counts: Doubles) -> float:
    """Mean cross-entropy, samples counted by `counts`."""
    each = -(wanted * np.log(_softmax(logits) + 1e-12)).sum(axis=1)
    return float((each * counts).sum() / counts.sum())


def _shares(named: Sequence[Sequence[str]], media: tuple[str, ...]) -> Doubles:
    """What each caption names as shares of `media`, (n, media)."""
    shares = np.zeros((len(named), len(media)))
    for row, mine in zip(shares, named, strict=True):
        for medium in mine or [_SILENT]:
            row[media.index(medium)] = 1 / max(1, len(mine))
    return shares


def _phrases(kept: Kept, media: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Sentences of D_S that name one medium alone, the commonest first; our own where there is none."""
    found: dict[str, Counter[str]] = {medium: Counter() for medium in media if medium != _SILENT}
    for text in kept.texts:
        for sentence in sentences(text):
            for medium in media_named(sentence) if len(media_named(sentence)) == 1 else ():
                found[medium][sentence] += 1
    common = {medium: [way for way, _ in sorted(ways.items(), key=_commonest)] for medium, ways in found.items()}
    return {medium: tuple(ways[:_MOST_PHRASES]) or MEDIA[medium] for medium, ways in common.items()}


def _commonest(counted: tuple[str, int]) -> tuple[int, str]:
    return -counted[1], counted[0]
