"""What the frozen tower gives for each version of an image, computed once and kept on the disk.

A file holds the features of one version of one image: 16 bytes that check the rest, then the row of
`IfasModel.features` in the dtype of the training. Its name is a hash of all that decides them: the image and the box of
its face, the views, the tower's weights, the code and the libraries, the seed of the augmentation and the number of the
version. So a resumed run, another run with the same tower and all ranks share the files. New versions of an image take
the place of the old ones: there are never more than `train.versions` files of an image. A file that is damaged, or of
an older version, is made again.

Whoever lacks a file makes it, a rank for its own draws. Ranks without a common disk each make theirs. Of a training on
the CPUs of one machine, the driver makes all files of the first versions while Ray starts: see `ahead`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ifas.core import colour, imaging
from ifas.core.errors import TrainingNeedsSpace
from ifas.core.files import replacing, sha256_file, sha256_json
from ifas.faces import face, handling, views
from ifas.model import ifas_model, processor, towers
from ifas.training import augment
from ifas.training.checkpoint import NO_SPACE, FreeBytes, free_bytes
from ifas.training.job import Job, Row

if TYPE_CHECKING:
    from torch import Tensor

    from ifas.model.processor import Pixels

#: The code and the libraries that decide what an image's features are.
CODE = (colour, imaging, face, handling, views, processor, augment, towers, ifas_model)
LIBRARIES = ("torch", "transformers", "pillow", "numpy")
#: Bytes before the features in a file.
CHECK = 16


class Version(NamedTuple):
    """How a draw shows its image.

    Attributes:
        number: of the augmentation; None: the image as it is.
        place: of the image's kept versions, 0 to `train.versions` - 1.
        block: how often the image's versions have been replaced before.
    """

    number: int | None
    place: int = 0
    block: int = 0


def version(job: Job, row: Row, position: int, turn: Callable[[int], int]) -> Version:
    """The version of a sample that the draw at a position shows.

    Args:
        turn: a position -> how often its sample was drawn before.
    """
    train = job.train
    if not train.augment:
        return Version(None)
    if not train.versions:
        return Version(position)
    times = turn(position)
    place, block = times % train.versions, times // train.redraw_after if train.redraw_after else 0
    return Version(int(sha256_json([row.sample_id, place, block])[:15], 16), place, block)


class Features:
    """The kept features of one training.

    Args:
        job: of the training.
        model: an `IfasModel` with a frozen tower, in the dtype and on the device of the training.
        look: the views of a version of a sample, (V, S, S, 3).
        free: bytes left on a disk.

    Attributes:
        computed: versions that were not there.
    """

    def __init__(
        self, job: Job, model: Any, look: Callable[[Row, Version], Pixels], free: FreeBytes = free_bytes
    ) -> None:
        self.job = job
        self.model = model
        self.look = look
        self.free = free
        weight = next(model.vision.parameters())
        self.dtype: torch.dtype = weight.dtype
        self.device: torch.device = weight.device
        self.folder = job.features / self._decided_by()[:32]
        self.computed = 0
        self._room = False

    def rows(self, wanted: Sequence[tuple[Row, Version]], each: Callable[..., Iterable[Any]] = map) -> Tensor:
        """Features (B, F) of B versions; those that are not there are computed and kept.

        Args:
            each: `map`, or that of an executor.

        Raises:
            DataError: an image can't be read or decoded.
            TrainingNeedsSpace: no space on the disk.
        """
        keys = [(self._file(*pair), pair[1].number) for pair in wanted]
        found = dict(zip(keys, each(self._read, wanted), strict=True))
        # Alignment draws rows of one image in one batch.
        lacking = {key: pair for key, pair in zip(keys, wanted, strict=True) if found[key] is None}
        if lacking:
            for key, features_F in zip(lacking, self._make(list(lacking.values()), each), strict=True):
                self._keep(*lacking[key], features_F)
                found[key] = features_F
        return torch.stack([found[key] for key in keys])

    def has(self, row: Row, shown: Version) -> bool:
        """Whether there is a file of this version or an older one, whole or damaged."""
        return self._file(row, shown).exists()

    @torch.no_grad()
    def _make(self, wanted: Sequence[tuple[Row, Version]], each: Callable[..., Iterable[Any]]) -> Tensor:
        pixels = [torch.from_numpy(one) for one in each(lambda pair: self.look(*pair), wanted)]
        made: Tensor = self.model.features(torch.stack(pixels).permute(0, 1, 4, 2, 3).contiguous().to(self.device))
        self.computed += len(wanted)
        return made.to(self.dtype).cpu()

    def _read(self, pair: tuple[Row, Version]) -> Tensor | None:
        row, shown = pair
        try:
            raw = bytearray(self._file(row, shown).read_bytes())
        except FileNotFoundError:
            return None
        if len(raw) <= CHECK or _check(shown, memoryview(raw)[CHECK:]) != raw[:CHECK]:
            return None
        return torch.frombuffer(raw, dtype=self.dtype, offset=CHECK)

    def _keep(self, row: Row, shown: Version, features_F: Tensor) -> None:
        raw = features_F.contiguous().view(torch.uint8).numpy().tobytes()
        try:
            self._require_room(len(raw) + CHECK)
            with replacing(self._file(row, shown)) as beside:
                beside.write_bytes(_check(shown, raw) + raw)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise self._no_room(len(raw)) from error

    def _require_room(self, size: int) -> None:
        """Before the first file is written: is there space for all that this training will have?"""
        if self._room:
            return
        train = self.job.train
        images = len({row.sample_id for row in self.job.rows})
        files = min(images * (train.versions if train.augment else 1), train.steps * train.global_batch)
        self.folder.mkdir(parents=True, exist_ok=True)
        there = sum(1 for _ in self.folder.glob("*/*"))
        needed = max(0, files - there) * size
        if self.free(self.folder) < needed:
            raise self._no_room(needed)
        self._room = True

    def _no_room(self, needed: int) -> TrainingNeedsSpace:
        return TrainingNeedsSpace(
            f"no space for the tower's features in {self.folder}: {needed / 2**20:.1f} MiB are needed, "
            f"{self.free(self.folder) / 2**20:.1f} MiB are free",
            f"free some space, lower train.versions, set train.features=false, or remove {self.job.features} where no "
            "other run uses it",
        )

    def _file(self, row: Row, shown: Version) -> Path:
        name = sha256_json([row.sample_id, row.box, shown.place])
        return self.folder / name[:2] / name[2:34]

    def _decided_by(self) -> str:
        job, config = self.job, self.job.model
        return sha256_json(
            [
                {file.__name__: sha256_file(Path(str(file.__file__))) for file in CODE},
                {name: metadata.version(name) for name in LIBRARIES},
                [config.views, config.face_margin, str(self.dtype)],
                [self.model.config.vision_kind, self.model.config.vision],
                [job.train.seed, job.train.handled] if job.train.augment else None,
                _weights_hash(self.model.vision),
            ]
        )


def _check(shown: Version, raw: bytes | memoryview) -> bytes:
    """What a file of a version begins with."""
    check = hashlib.blake2b(f"{shown.number}\0".encode(), digest_size=CHECK)
    check.update(raw)
    return check.digest()


def _weights_hash(tower: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
