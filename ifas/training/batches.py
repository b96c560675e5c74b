"""From draws to micro-batches: read, decode, augment, tokenise; one step ahead of the model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ifas.core.errors import DataError, ImageRefused
from ifas.core.imaging import decode
from ifas.faces.face import Face
from ifas.model.processor import IfasProcessor, Pixels
from ifas.training.augment import augmentation
from ifas.training.features import Features, Version, version
from ifas.training.job import Job, Row
from ifas.training.sampling import Draws, Sampler
from ifas.training.weights import sample_weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MicroBatch:
    """The B samples that a rank passes through the model at once.

    Attributes:
        inputs: of `IfasModel.forward`: pixel_values (uint8 until they are on the device) or features, input_ids, parts.
        sample_ids: for errors that name samples.
        species_B: index of each sample's spoof type in `Job.species`.
        weights_B: of each sample in the loss.
    """

    inputs: dict[str, Tensor]
    sample_ids: tuple[str, ...]
    species_B: Tensor
    weights_B: Tensor


class Batches:
    """Micro-batches of one rank.

    Args:
        rank, world_size: this rank, and the number of ranks.
        model: on its device; for `train.features`.

    Attributes:
        features: kept ones of the tower; None: the model gets pixels.
        seconds: spent on making batches so far, in the thread that makes them.
        waited: seconds that the model waited for a batch.
    """

    def __init__(
        self, job: Job, processor: IfasProcessor, rank: int, world_size: int = 1, *, model: Any = None
    ) -> None:
        self.job = job
        self.processor = processor
        self.rank = rank
        self.accumulate = job.accumulate(world_size)
        train = job.train
        sampler = Sampler(
            [row.spoof_type for row in job.rows],
            seed=train.seed,
            balance=train.balance,
            weights=[row.weight for row in job.rows] if train.domain_balance else None,
        )
        lengths = None
        if train.length_window > 1:
            lengths = [
                len(processor.prompt(row.question))
                + len(processor.answer(row.reply, row.caption, attack=row.attack)[0])
                for row in job.rows
            ]
        self.draws = Draws(sampler, job.global_batch, lengths=lengths, window=train.length_window, seed=train.seed)
        self.world_size = world_size
        self.weights = sample_weights(job.rows, train)
        self.species = {name: index for index, name in enumerate(job.species)}
        self.features = Features(job, model, self._views) if train.features else None
        self.seconds = self.waited = 0.0

    def steps(self, start: int, stop: int) -> Iterator[list[MicroBatch]]:
        """The micro-batches of each step; the next step's are made in a thread while this step's are used.

        Raises:
            DataError: an image can't be read or decoded.
        """
        with ThreadPoolExecutor(1) as maker, ThreadPoolExecutor(self.job.train.loaders) as decoders:
            ahead = maker.submit(self._timed, start, decoders)
            for step in range(start, stop):
                began = time.monotonic()
                ready = ahead.result()
                self.waited += time.monotonic() - began
                if step + 1 < stop:
                    ahead = maker.submit(self._timed, step + 1, decoders)
                yield ready

    def _timed(self, step: int, decoders: Executor) -> list[MicroBatch]:
        began = time.monotonic()
        made = [self.micro(step, k, decoders) for k in range(self.accumulate)]
        self.seconds += time.monotonic() - began
        return made

    def micro(self, step: int, micro: int, decoders: Executor | None = None) -> MicroBatch:
        """A rank's `micro`-th micro-batch of a step; images are decoded by `decoders` where there are any."""
        share = slice(*self._share(micro))
        positions, indices = self.draws.step(step)
        each = decoders.map if decoders else map
        rows = [self.job.rows[index] for index in indices[share]]
        shown = [
            self._version(index, position) for index, position in zip(indices[share], positions[share], strict=True)
        ]
        inputs = self.processor.batch(
            [] if self.features else list(each(self._views, rows, shown)),
            [row.reply for row in rows],
            [row.caption for row in rows],
            questions=[row.question for row in rows],
            attacks=[row.attack for row in rows],
            judged=[row.judged for row in rows],
            attack_weight=self.job.train.attack_weight,
        )
        if self.features:
            inputs["features"] = self.features.rows(list(zip(rows, shown, strict=True)), each)
        return MicroBatch(
            inputs=inputs,
            sample_ids=tuple(row.sample_id for row in rows),
            species_B=torch.tensor([self.species[row.spoof_type] for row in rows]),
            weights_B=torch.tensor([self.weights[index] for index in indices[share]]),
        )

    def _share(self, micro: int) -> tuple[int, int]:
        """All ranks and micro-batches of a step together tile the step's draws."""
        start = (micro * self.world_size + self.rank) * self.job.train.batch
        return start, start + self.job.train.batch

    def first_versions(self) -> Iterator[tuple[Row, Version]]:
        """The samples and versions that the whole training shows, each once, as long as none has been replaced."""
        known = set()
        for step in range(self.job.train.steps):
            for position, index in zip(*self.draws.step(step), strict=True):
                shown = self._version(index, position)
                key = self.job.rows[index].sample_id, shown.place
                if not shown.block and key not in known:
                    known.add(key)
                    yield self.job.rows[index], shown

    def seen(self, drawn: Sequence[tuple[Row, Version]], model: Any) -> Tensor:
        """What the tower gives for some draws: rows (B, F) of `IfasModel.features`, kept ones where there are any."""
        if self.features:
            return self.features.rows(drawn).to(model.device)
        pixels = self.processor.pixel_values([self._views(row, shown) for row, shown in drawn])
        found: Tensor = model.features(pixels.to(model.device))
        return found

    def _version(self, index: int, position: int) -> Version:
        return version(self.job, self.job.rows[index], position, self.draws.sampler.turn)

    def _views(self, row: Row, shown: Version) -> Pixels:
        try:
            picture = decode(self.job.images.read(row.shard, row.row))
        except ImageRefused as error:
            raise DataError(
                f"training sample {row.sample_id} ({row.shard}, row {row.row}): {error.what}",
                "run `ifas step validate` again: it lists images that can't be decoded, and training leaves them out",
            ) from error
        face = Face.of(picture, row.box)
        if shown.number is None:
            return self.processor.views(face)
        change = augmentation(self.job.train.seed, shown.number, self.job.train.handled)
        return change.recolour(self.processor.views(change.handled(face), change.shifted))
