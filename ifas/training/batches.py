"""From draws to micro-batches: read, decode, augment, tokenise; one step ahead of the model."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ifas.core.errors import DataError, ImageRefused
from ifas.core.imaging import decode
from ifas.model.processor import IfasProcessor, Pixels
from ifas.training.augment import augmentation
from ifas.training.job import Job
from ifas.training.sampling import Sampler, positions

if TYPE_CHECKING:
    from torch import Tensor

#: Inputs of `IfasModel.forward`: pixel_values, input_ids, parts.
Batch = dict[str, "Tensor"]


class Batches:
    """Micro-batches of one rank.

    Args:
        job, processor: see there.
        rank: whose share.
    """

    def __init__(self, job: Job, processor: IfasProcessor, rank: int) -> None:
        self.job = job
        self.processor = processor
        self.rank = rank
        self.sampler = Sampler(
            [row.spoof_type for row in job.rows],
            seed=job.train.seed,
            balance=job.train.balance,
            weights=[row.weight for row in job.rows] if job.train.domain_balance else None,
        )

    def steps(self, start: int, stop: int) -> Iterator[list[Batch]]:
        """The micro-batches of each step; the next step's are made in a thread while this step's are used.

        Raises:
            DataError: a picture can't be read or decoded.
        """
        with ThreadPoolExecutor(max_workers=1) as pool:
            ahead = pool.submit(self.step, start)
            for step in range(start, stop):
                ready = ahead.result()
                if step + 1 < stop:
                    ahead = pool.submit(self.step, step + 1)
                yield ready

    def step(self, step: int) -> list[Batch]:
        """The `accumulate` micro-batches of one optimizer step."""
        return [self.micro(step, k) for k in range(self.job.train.accumulate)]

    def micro(self, step: int, micro: int) -> Batch:
        """One micro-batch, inputs of `IfasModel.forward`."""
        train = self.job.train
        draws = positions(step, micro, self.rank, batch=train.batch, workers=train.workers, accumulate=train.accumulate)
        rows = [self.job.rows[self.sampler.draw(position)] for position in draws]
        pictures = [self._picture(position, self.sampler.draw(position)) for position in draws]
        return self.processor.batch(
            pictures,
            [row.reply for row in rows],
            [row.caption for row in rows],
            questions=[row.question for row in rows],
            judged=[row.judged for row in rows],
        )

    def _picture(self, position: int, index: int) -> Pixels:
        row = self.job.rows[index]
        try:
            picture = decode(self.job.images.read(row.shard, row.row))
        except ImageRefused as error:
            raise DataError(
                f"training sample {row.sample_id} ({row.shard}, row {row.row}): {error.what}",
                "run `ifas step ingest` again: it lists and drops pictures that can't be decoded",
            ) from error
        if not self.job.train.augment:
            return self.processor.image(picture)
        change = augmentation(self.job.train.seed, position)
        return change.recolour(self.processor.image(picture, change.box(*picture.shape[:2])))
