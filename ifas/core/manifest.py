"""The manifest's columns: one row is one image or one frame. Files are Parquet; readers live in `ifas.data`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ifas.core.errors import DataError
from ifas.core.release_status import CANARY, QUARANTINED, RELEASED

if TYPE_CHECKING:
    import pandas as pd


#: Release status of a row: only released rows are ever trained on; evaluation sees all.
STATUSES = (RELEASED, QUARANTINED, CANARY)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: Arrow type name, whether nulls are allowed, and what it holds."""

    name: str
    type: str
    about: str
    nullable: bool = False


def _c(name: str, type: str, about: str, nullable: bool = False) -> Column:
    return Column(name=name, type=type, about=about, nullable=nullable)


#: Columns of every manifest.
COLUMNS: tuple[Column, ...] = (
    _c("sample_id", "string", "hex SHA-256 of the encoded image bytes"),
    _c("dataset", "string", "name of the dataset in the registry"),
    _c("domain", "string", "capture domain that protocols split by: a dataset, or a camera and its place"),
    _c("subject_id", "string", "person, unique within the dataset"),
    _c("media_id", "string", "source video or photo"),
    _c("track_id", "string", "face track within the media", nullable=True),
    _c("frame_index", "int64", "frame within the media", nullable=True),
    _c("split", "string", "train, dev or test; by subject, never by frame"),
    _c("label", "string", "live or spoof"),
    _c("spoof_type", "string", "live, print, replay, mask or mannequin"),
    _c("pai_species", "string", "PAI species (ISO/IEC 30107-3), dotted, begins with the spoof type"),
    _c("device", "string", "capture device", nullable=True),
    _c("environment", "string", "indoor, outdoor, ...", nullable=True),
    _c("illumination", "string", "normal, strong, back, dark, ...", nullable=True),
    _c("face_box", "list<float>", "x, y, w, h in pixels of the stored image", nullable=True),
    _c("width", "int32", "pixels"),
    _c("height", "int32", "pixels"),
    _c("shard", "string", "file name of the Parquet shard below shards/"),
    _c("row", "int32", "row within the shard"),
    _c("licence", "string", "SPDX id or the dataset's terms"),
    _c("source", "string", "path of the image in the raw dataset"),
    _c("synthetic", "bool", "rendered, not photographed"),
    _c("attack", "string", "JSON: ground truth of a simulated or staged attack", nullable=True),
    _c("quality", "string", "JSON: measurements of the frame and its track", nullable=True),
    _c("batch", "string", "batch of `ifas data add` that brought the row", nullable=True),
    _c("status", "string", "released, quarantined (never trained on yet) or canary (never trained on)"),
)

#: Columns that captioning adds.
CAPTION_COLUMNS: tuple[Column, ...] = (
    _c("caption", "string", "the interpretation that the model learns to write"),
    _c("caption_source", "string", "general or spoof-aware"),
    _c("caption_general", "string", "what the general captioner said, before filtering"),
    _c(
        "caption_tuned",
        "string",
        "what the tuned captioner said of an attack, unchecked",
        nullable=True,
    ),
    _c("caption_kept", "bool", "a general caption of an attack passed the filter of Algorithm 1"),
    _c("evidence", "string", "JSON: measurements the caption rests on, and how sure each specialist is"),
    _c("clauses", "string", "JSON list: text, specialist, value and confidence of each clause of the caption"),
    _c(
        "face_refused",
        "string",
        "why no face of the image can be judged (no_face, several_faces, ...); `face_box` is then the dataset's",
        nullable=True,
    ),
    _c("label_audit", "string", "JSON list: evidence that contradicts the label", nullable=True),
)

#: Columns that inspecting the images adds (`core.picture_inspection`). A dataset folder does not hold them.
INSPECTION_COLUMNS: tuple[Column, ...] = (_c("phash", "string", "perceptual hash, 144 hex digits"),)

MANIFEST_FILE = "manifest.parquet"
#: Beside a fetched dataset: the manifest of the revision before, where there is one.
PREVIOUS_MANIFEST_FILE = "previous.parquet"
SHARDS_DIR = "shards"
#: What a dataset is, packed or in the `folder` layout; and that layout's list of samples.
DATASET_FILE = "dataset.json"
SAMPLES_FILE = "samples.jsonl"


def check_columns(present: list[str], captioned: bool = False, where: str = MANIFEST_FILE) -> None:
    """Raises DataError naming every column of the manifest that is missing."""
    wanted = COLUMNS + (CAPTION_COLUMNS if captioned else ())
    missing = [c for c in wanted if c.name not in present]
    if missing:
        listed = "; ".join(f"{c.name} ({c.about})" for c in missing)
        step = "caption" if any(c in CAPTION_COLUMNS for c in missing) else "ingest"
        raise DataError(f"{where} has no column(s) {listed}", f"run `ifas step {step}` again to rebuild it")


def read_manifest(
    path: Path,
    captioned: bool = False,
    *,
    domains: Sequence[str] = (),
    splits: Sequence[str] = (),
    incomplete: bool = False,
) -> pd.DataFrame:
    """The manifest in a Parquet file, or in a folder that holds `manifest.parquet`, columns checked.

    Args:
        domains, splits: only these rows; row groups of other domains are not read. Empty: all.
        incomplete: accept a manifest with missing columns; the caller reports them.

    Raises:
        DataError: no such file, not Parquet, text that is not UTF-8, or a column is missing.
    """
    import pyarrow.parquet as pq

    file = path / MANIFEST_FILE if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"no manifest at {file}", "point to a dataset folder, or to its manifest.parquet")
    try:
        wanted = [(column, "in", list(values)) for column, values in (("domain", domains), ("split", splits)) if values]
        table = pq.read_table(file, filters=wanted or None)
        # Without this, damaged text raises an error only when it is read.
        table.validate(full=True)
        frame: pd.DataFrame = table.to_pandas()
    except (OSError, ValueError) as error:
        raise DataError(f"{file} can't be read as Parquet: {error}", "fetch the dataset again") from error
    if not incomplete:
        check_columns(list(frame.columns), captioned, str(file))
    return frame


class ImageSource(Protocol):
    """Where the encoded bytes of a sample come from. Picklable, so that it can be sent to workers."""

    def read(self, shard: str, row: int) -> bytes:
        """Encoded image bytes at a row of a shard. Raises CorruptShardError or DataError."""
        ...
