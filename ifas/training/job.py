"""What the driver hands to every worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ifas.core.config import ModelConfig, TrainConfig
from ifas.core.errors import DataError, TrainingError
from ifas.core.files import sha256_file, sha256_json
from ifas.core.manifest import ImageSource, check_columns
from ifas.core.release_status import RELEASED
from ifas.core.storage import uri_of
from ifas.core.taxonomy import media_named
from ifas.faces.boxes import Box, box_of

if TYPE_CHECKING:
    import pandas as pd


#: In the folder of a run: the finished model; the step at which each start began; facts from rank 0 (in FINAL).
FINAL = "final"
STARTS_FILE = "starts.jsonl"
FACTS_FILE = "facts.json"

#: Settings that say how and where the training runs, not what it computes.
HOW = (
    *("gpus_per_worker", "workers", "accumulate", "batch", "loaders", "offload", "mlflow", "storage"),
    "features",
    *("max_failures", "max_preemptions", "checkpoint_every", "keep_checkpoints", "compile"),
)


class Row(NamedTuple):
    """One training sample. `spoof_type` is live for bona fide samples; `caption` is the interpretation to learn;
    `weight` is how often it is drawn, relative to others of its class. A corrective turn of alignment has a `question`
    of its own, whose answer is `yes` or no and then `caption`; `judged`: that Yes or No is the judgment. `box` is that
    of the face; None: the image is nothing but the face."""

    sample_id: str
    shard: str
    row: int
    spoof_type: str
    caption: str
    weight: float = 1.0
    question: str = ""
    yes: bool = False
    judged: bool = True
    box: Box | None = None

    @property
    def live(self) -> bool:
        """Bona fide or not."""
        return self.spoof_type == "live"

    @property
    def reply(self) -> bool:
        """Yes or No: to its own question, or to the model's fixed one."""
        return self.yes if self.question else self.live

    @property
    def attack(self) -> str:
        """Spoof type that the answer names first: the one that the caption of an attack names; else none.

        From the caption, not from the label: what nobody could see in the image, or say of it, is not taught.
        """
        return "" if self.question or self.live else next(iter(media_named(self.caption)), "")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run. Picklable; all ranks get the same one.

    Attributes:
        run: folder for checkpoints, curve and the final model: one that all workers share, or with `uri` each
            machine's own.
        base: model directory to go on from, a path or a pinned URI; empty begins with the model's sources.
        beside: place for checkpoints and model; empty: `train.storage`, and where that is empty, `run`.
        joined: the ranks are workers of a cluster, whose machines may share nothing but the store.
    """

    model: ModelConfig
    train: TrainConfig
    rows: tuple[Row, ...]
    images: ImageSource
    run: Path
    base: str = ""
    beside: str = ""
    joined: bool = False

    @property
    def global_batch(self) -> int:
        """Samples per optimizer step, over all ranks and micro-batches."""
        return self.train.global_batch

    @property
    def features(self) -> Path:
        """Folder of kept features, shared by the runs of one work folder and by those beside it."""
        return self.run.parent.parent / "features"

    @property
    def uri(self) -> str:
        """URI for this run's checkpoints and model, so that `run` need not be shared; empty: they are only in `run`."""
        place = self.beside or self.train.storage
        if not place:
            return ""
        return f"{uri_of(place).rstrip('/')}/{self.run.name}"

    @property
    def species(self) -> tuple[str, ...]:
        """Spoof types of the rows, `live` among them, sorted."""
        return tuple(sorted({row.spoof_type for row in self.rows}))

    def accumulate(self, world_size: int) -> int:
        """Micro-batches of a rank per step, when `world_size` ranks share the global batch.

        Raises:
            TrainingError: they can't share it evenly.
        """
        accumulate, left = divmod(self.global_batch, self.train.batch * world_size)
        if left or not accumulate:
            raise TrainingError(
                f"{world_size} workers with micro-batches of {self.train.batch} can't share a global batch of "
                f"{self.global_batch}",
                "set train.batch, train.accumulate and train.workers so that their product stays the same",
            )
        return accumulate


def rows_of(manifest: pd.DataFrame) -> tuple[Row, ...]:
    """Training samples of a captioned manifest, in its order.

    Raises:
        DataError: a column is missing, there are no rows, one class only, an empty caption, or an unreleased row.
    """
    check_columns(list(manifest.columns), captioned=True, where="the training manifest")
    locked = manifest[manifest["status"] != RELEASED]
    if len(locked):
        raise DataError(
            f"{len(locked)} training rows are not released ({', '.join(sorted(set(locked['status'].astype(str))))}), "
            f"the first is {locked['sample_id'].iloc[0]}",
            "train on released rows; `ifas data release` opens a quarantined batch, and nothing opens a canary set",
        )
    weighted = manifest if "weight" in manifest else manifest.assign(weight=1.0)
    rows = tuple(
        Row(
            str(r.sample_id),
            str(r.shard),
            int(r.row),
            str(r.spoof_type),
            str(r.caption or ""),
            float(r.weight),
            box=box_of(r.face_box),
        )
        for r in weighted[[*Row._fields[:6], "face_box"]].itertuples(index=False)
    )
    if {row.live for row in rows} != {True, False}:
        raise DataError(
            f"the training rows ({len(rows)}) need bona fide and attack samples, both",
            "check protocol.source_domains against the domains of the dataset's train split",
        )
    bare = [row.sample_id for row in rows if not row.caption.strip() or row.caption == "nan"]
    if bare:
        raise DataError(
            f"{len(bare)} training sample(s) have no caption, the first is {bare[0]}", "run `ifas step caption` again"
        )
    return rows


def fingerprint(model: ModelConfig, train: TrainConfig, rows: tuple[Row, ...], base: Path | None = None) -> str:
    """12 hex digits, a hash of everything that changes the trained weights.

    It names the folder of the checkpoints, so that a changed configuration or dataset never resumes from another run's
    state. The number of workers is not part of it: a run may go on with more or fewer of them.
    """
    settings = train.model_dump(mode="json", exclude=set(HOW))
    begun = weights_hash(base) if base else ""
    return sha256_json([model.model_dump(mode="json"), settings, train.global_batch, rows, begun])[:12]


def weights_hash(model: Path) -> str:
    """SHA-256 of the weights in a model directory."""
    return sha256_json([sha256_file(file) for file in sorted(model.glob("*.safetensors"))])
