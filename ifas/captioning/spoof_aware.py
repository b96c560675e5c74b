"""The spoof-aware captioner: C_S of Algorithm 1, the general captioner as a network, fine-tuned on kept captions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ifas.captioning.inputs import CHANNELS, FEATURES, SIDE, network_input
from ifas.captioning.network import CaptionNetwork, NetworkShape
from ifas.captioning.protocol import Caption
from ifas.captioning.reproducible import reproducible
from ifas.captioning.words import PAD, Vocabulary
from ifas.core.errors import DataError
from ifas.core.files import read_json, replacing
from ifas.core.progress import Progress

if TYPE_CHECKING:
    import numpy.typing as npt

    from ifas.captioning.measure import Measured
    from ifas.captioning.pictures import Pictures
    from ifas.captioning.protocol import Losses
    from ifas.core.config import CaptionConfig

    Floats = npt.NDArray[np.float32]
    Bytes = npt.NDArray[np.uint8]

_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
#: Pictures decoded by the network at once, and network inputs in memory at once.
_DECODE_BATCH, _WRITE_CHUNK = 64, 512


class SpoofAwareCaptioner:
    """A captioner network with its vocabulary and the scale of its measurements.

    Args:
        network: the network.
        vocabulary: its words.
        centre, scale: median and spread of each feature over the tuning images, (FEATURES,).
    """

    def __init__(self, network: CaptionNetwork, vocabulary: Vocabulary, centre: Floats, scale: Floats) -> None:
        self.network = network.eval()
        self.vocabulary = vocabulary
        self.centre = centre
        self.scale = scale

    @classmethod
    def new(cls, texts: Sequence[str], features: Floats, seed: int) -> SpoofAwareCaptioner:
        """An untrained captioner with the words of `texts`, scaled to the features (n, FEATURES) of its images."""
        vocabulary = Vocabulary.of(texts)
        torch.manual_seed(seed)
        network = CaptionNetwork(
            NetworkShape(vocabulary=len(vocabulary.words), measurements=FEATURES, channels=CHANNELS, side=SIDE)
        )
        low, centre, high = np.percentile(features, (10, 50, 90), axis=0).astype(np.float32)
        return cls(network, vocabulary, centre, np.maximum((high - low) / 2, np.float32(1e-3)))

    def learn(
        self,
        pictures: Pictures,
        texts: Sequence[str],
        config: CaptionConfig,
        *,
        steps: int,
        progress: Progress | None = None,
    ) -> list[float]:
        """Trains on pictures and their captions for `steps` batches; the loss of each step.

        The learning rate warms up over a tenth of the steps and falls to a tenth by a cosine.
        """
        ids = self._pad([self.vocabulary.encode(text, self.network.shape.longest) for text in texts])
        rng = np.random.default_rng([config.seed, steps, len(texts)])
        torch.manual_seed(config.seed)
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=config.lr, weight_decay=0.01)
        losses = []
        self.network.train()
        order = _batches(len(texts), min(config.batch, len(texts)), rng)
        for step in range(steps):
            chosen = next(order)
            for group in optimiser.param_groups:
                group["lr"] = config.lr * _schedule(step, steps)
            loss = self.network.loss(*self._tensors(*pictures.inputs(chosen), rng), _trim(ids[chosen]))
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimiser.step()
            losses.append(loss.item())
            if progress is not None:
                progress.advance(loss=round(losses[-1], 3))
        self.network.eval()
        return losses

    def write(self, pictures: Pictures) -> list[str]:
        """One caption per picture."""
        texts: list[str] = []
        progress = Progress("caption", total=len(pictures), unit="captions")
        with reproducible():
            for start in range(0, len(pictures), _WRITE_CHUNK):
                chosen = np.arange(start, min(start + _WRITE_CHUNK, len(pictures)))
                texts += self._write(*pictures.inputs(chosen))
                progress.advance(len(chosen), phase="spoof-aware captions")
        return texts

    def caption(self, pictures: Sequence[Measured]) -> list[Caption]:
        """One caption per picture."""
        inputs = [network_input(one) for one in pictures]
        if not inputs:
            return []
        texts = self._write(np.stack([i.picture for i in inputs]), np.stack([i.features for i in inputs]))
        return [Caption(text, dict(one.values)) for text, one in zip(texts, pictures, strict=True)]

    def _write(self, pictures: Bytes, features: Floats) -> list[str]:
        """Greedy captions of network inputs: (n, CHANNELS, SIDE, SIDE) and (n, FEATURES)."""
        texts = []
        for start in range(0, len(pictures), _DECODE_BATCH):
            part = slice(start, start + _DECODE_BATCH)
            rows = self.network.write(*self._tensors(pictures[part], features[part]))
            texts += [self.vocabulary.decode(row) for row in rows]
        return texts

    def save(self, folder: Path) -> None:
        """Writes `model.safetensors` and `config.json` to a folder, atomically."""
        from safetensors.torch import save_file

        with replacing(folder) as beside:
            beside.mkdir()
            save_file({k: v.contiguous() for k, v in self.network.state_dict().items()}, beside / _WEIGHTS)
            config = {
                "shape": asdict(self.network.shape),
                "words": self.vocabulary.words,
                "centre": [float(v) for v in self.centre],
                "scale": [float(v) for v in self.scale],
            }
            (beside / _CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> SpoofAwareCaptioner:
        """The captioner in a folder that `save` wrote.

        Raises:
            DataError: a file is missing, or weights and config do not fit each other.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            config = read_json(folder / _CONFIG)
            network = CaptionNetwork(NetworkShape(**config["shape"]))
            network.load_state_dict(load_file(folder / _WEIGHTS))
            return cls(
                network,
                Vocabulary(tuple(config["words"])),
                np.asarray(config["centre"], dtype=np.float32),
                np.asarray(config["scale"], dtype=np.float32),
            )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise DataError(f"{folder} holds no usable captioner: {error}", "run the caption step again") from error

    def _tensors(
        self, pictures: Bytes, features: Floats, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scaled tensors; with `rng`, pictures are mirrored at random and features jittered a little."""
        scaled = np.clip((features - self.centre) / self.scale, -4, 4)
        if rng is not None:
            mirrored = rng.random(len(pictures)) < 0.5
            pictures = pictures.copy()
            pictures[mirrored] = pictures[mirrored][..., ::-1]
            scaled = scaled + rng.normal(0, 0.1, scaled.shape)
        # uint8 to about -1..1.
        return torch.from_numpy(pictures).float() / 127.5 - 1, torch.from_numpy(scaled.astype(np.float32))

    def _pad(self, rows: list[list[int]]) -> Tensor:
        ids = torch.full((len(rows), max(map(len, rows))), PAD)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return ids


def imitation(
    pictures: Pictures, texts: Sequence[str], kept: npt.NDArray[np.bool_], config: CaptionConfig
) -> tuple[SpoofAwareCaptioner, Losses]:
    """C_S for a captioner that has no weights to tune: a network first imitates all its captions, then learns D_S.

    Args:
        pictures, texts: the tuning pictures and what the general captioner said of them.
        kept: bool (n,), which of them form D_S.
    """
    progress = Progress("caption", total=config.imitate_steps + config.tune_steps, unit="steps")
    chosen = np.flatnonzero(kept)
    with reproducible():
        captioner = SpoofAwareCaptioner.new(texts, pictures.features(), config.seed)
        imitate = captioner.learn(pictures, texts, config, steps=config.imitate_steps, progress=progress)
        mine, said = pictures.take(chosen), [texts[i] for i in chosen.tolist()]
        tune = captioner.learn(mine, said, config, steps=config.tune_steps, progress=progress)
    return captioner, {"imitate": imitate, "tune": tune}


def _batches(count: int, batch: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Endless batches; every sample once per pass, the incomplete last batch of a pass left out."""
    while True:
        order = rng.permutation(count)
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


def _schedule(step: int, steps: int) -> float:
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.45 * (1 + float(np.cos(np.pi * (step - warm) / max(1, steps - warm))))


def _trim(ids: Tensor) -> Tensor:
    """Cuts columns that are padding in every row."""
    return ids[:, : int((ids != PAD).sum(1).max())]
