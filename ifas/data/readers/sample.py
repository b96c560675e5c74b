"""What a reader finds in a raw dataset, before any image is decoded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from ifas.core.taxonomy import Label, Split, SpoofType, spoof_type_of

#: What a file of a raw dataset holds: one image, or a medium of many frames that `ifas.data.media` takes apart.
Container = Literal["image", "video", "hdf5"]

#: File name endings that readers take for images. What a file really holds is decided when it is decoded.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".mov", ".mp4", ".mkv", ".m4v"})


@dataclass(frozen=True, kw_only=True)
class RawSample:
    """One image, or one medium of many frames, of a raw dataset.

    `path` is where its file is; a string, since building a Path costs as much as reading a small image.
    Label and spoof type follow from the PAI species, so they can't contradict it.

    `face_box` is x, y, w, h in a frame of `box_frame` (width, height), or in pixels of the image where that is None;
    packing, which knows the image's size, scales and clips it.
    """

    path: str
    source: str
    domain: str
    subject_id: str
    media_id: str
    split: Split
    pai_species: str
    track_id: str | None = None
    frame_index: int | None = None
    device: str | None = None
    environment: str | None = None
    illumination: str | None = None
    face_box: tuple[float, float, float, float] | None = None
    box_frame: tuple[int, int] | None = None
    licence: str = ""
    synthetic: bool = False
    attack: dict[str, Any] | None = None
    quality: dict[str, float] | None = None
    container: Container = "image"

    @property
    def spoof_type(self) -> SpoofType:
        """Spoof type of the species."""
        return spoof_type_of(self.pai_species)

    @property
    def label(self) -> Label:
        """`live` for bona fide, `spoof` for every attack."""
        return "live" if self.spoof_type == "live" else "spoof"


class Refusal(NamedTuple):
    """One image that does not enter the dataset, and why.

    `stage` names the filter of a video or image that rejected it; species and domain are known then, so that
    rejections can be counted per class.
    """

    source: str
    reason: str
    stage: str = ""
    pai_species: str = ""
    domain: str = ""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Everything a reader found: samples, samples with contradicting labels, and files that are not part of the layout.

    `licence` is that of the whole dataset, empty where the layout does not say it.
    """

    name: str
    samples: tuple[RawSample, ...]
    refused: tuple[Refusal, ...] = ()
    unrecognised: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    licence: str = ""
    description: str = ""
    synthetic: bool = False


class Reader(Protocol):
    """Knows one layout in which a dataset is distributed."""

    def scan(self, root: Path) -> Scan:
        """All samples below `root`. Raises DataError where the layout is not this one."""
        ...


#: Shares of the subjects in train and dev where a distribution has no splits; the rest is test. Our choice.
TRAIN_SHARE, DEV_SHARE = 0.60, 0.15


def split_of(subject_id: str) -> Split:
    """Split of a subject in a dataset that comes without splits."""
    share = share_of(subject_id)
    return "train" if share < TRAIN_SHARE else "dev" if share < TRAIN_SHARE + DEV_SHARE else "test"


def train_or_dev(subject_id: str) -> Split:
    """Split of a training subject in a dataset that comes without development data. The share is our choice."""
    return "dev" if share_of(subject_id) < DEV_SHARE else "train"


@lru_cache(maxsize=2**16)
def share_of(subject_id: str) -> float:
    """A number in [0, 1) that depends on the subject only: a subject stays in its split when others are added."""
    return int.from_bytes(hashlib.sha256(subject_id.encode()).digest()[:8], "big") / 2**64
