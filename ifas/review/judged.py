"""The files that a candidate was judged by, if they are still what was judged.

The ledger alone is enough for a page. What lies in files is shown only where its hash is the one that the ledger has:
else the page says that it is gone, or that it is another file now.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ifas.core import storage
from ifas.core.errors import DataError, IfasError
from ifas.core.files import read_json, sha256_file, sha256_tree
from ifas.core.manifest import ImageSource, read_manifest
from ifas.core.records import PREDICTIONS_FILE, Lineage
from ifas.promotion.candidate import Candidate

if TYPE_CHECKING:
    import pandas as pd

#: Candidates whose files stay in memory.
KEPT = 8


@dataclass(frozen=True)
class Dataset:
    """A packed dataset: a row for each image, the hash of that table, and where the images' bytes are read from.

    Nothing of it was checked yet. An image's name is its hash; of the table, `Judged.dataset_proven` tells.
    """

    manifest: pd.DataFrame
    manifest_sha256: str
    images: ImageSource


#: Opens the dataset at a path or URI. Raises DataError. The data room is not ours: who starts us passes it in.
OpenDataset = Callable[[str], Dataset]


@dataclass(frozen=True)
class Judged:
    """What could be read. `trouble`: what could not -> why; `altered`: those of them that are other files now."""

    predictions: pd.DataFrame | None = None
    lineage: Lineage | None = None
    captions: pd.DataFrame | None = None
    dataset: Dataset | None = None
    trouble: Mapping[str, str] = field(default_factory=dict)
    altered: tuple[str, ...] = ()

    @property
    def dataset_proven(self) -> bool:
        """Whether the dataset's table is the one that the run's lineage tells of."""
        ingest = self.lineage.of("ingest") if self.lineage else None
        index = ingest.facts.get("index") if ingest else None
        known = index.get("manifest_sha256") if isinstance(index, Mapping) else None
        return self.dataset is not None and known == self.dataset.manifest_sha256


class _Altered(DataError):
    """A file that is not what was judged."""


class Files:
    """Reads the files of candidates, and keeps those that were whole.

    Args:
        open_dataset: see `OpenDataset`; None: no pictures.
    """

    def __init__(self, open_dataset: OpenDataset | None = None) -> None:
        self._open_dataset = open_dataset
        self._kept: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._lock = Lock()

    def of(self, candidate: Candidate) -> Judged:
        """All that can be read of a candidate's files."""
        found: dict[str, Any] = {}
        trouble: dict[str, str] = {}
        altered: list[str] = []
        readers: dict[str, Callable[[Candidate], Any]] = {
            "predictions": _predictions,
            "lineage": _lineage,
            "captions": _captions,
            "dataset": self._dataset,
        }
        for name, read in readers.items():
            try:
                found[name] = self._once(candidate, name, read)
            except _Altered as error:
                trouble[name] = error.what
                altered.append(name)
            except (IfasError, OSError, ValueError) as error:
                trouble[name] = error.what if isinstance(error, IfasError) else f"{type(error).__name__}: {error}"
        return Judged(**found, trouble=trouble, altered=tuple(altered))

    def _once(self, candidate: Candidate, name: str, read: Callable[[Candidate], Any]) -> Any:
        key = (candidate.evidence_sha256, name)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = read(candidate)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > KEPT * 4:
                self._kept.popitem(last=False)
        return made

    def _dataset(self, candidate: Candidate) -> Dataset:
        if self._open_dataset is None:
            raise DataError("this page was started without pictures")
        return self._open_dataset(_place(candidate, "dataset"))


def _place(candidate: Candidate, name: str) -> str:
    """Where the ledger says that something is. Raises DataError where it does not say."""
    places = candidate.facts.get("artifacts")
    place = places.get(name) if isinstance(places, Mapping) else None
    if not isinstance(place, str) or not place:
        raise DataError(f"the ledger does not say where the {name} of this candidate lies")
    return place


def _hash(candidate: Candidate, name: str) -> str:
    sha256 = candidate.evidence.get(name, "")
    if not sha256:
        raise DataError(f"the ledger has no hash of the {name} of this candidate")
    return sha256


def _predictions(candidate: Candidate) -> pd.DataFrame:
    import pandas as pd

    expected, place = _hash(candidate, "predictions"), storage.unpinned(_place(candidate, "evaluation"))[0]
    file = storage.here(f"{place.rstrip('/')}/{PREDICTIONS_FILE}")
    if sha256_file(file) != expected:
        raise _Altered(f"{place}/{PREDICTIONS_FILE} is not the file that was judged")
    frame = pd.read_parquet(file)
    # What was read is what was hashed, also where somebody replaced the file in between.
    if sha256_file(file) != expected:
        raise _Altered(f"{place}/{PREDICTIONS_FILE} was changed while it was read")
    return frame


def _lineage(candidate: Candidate) -> Lineage:
    place = _place(candidate, "lineage")
    try:
        lineage = Lineage.model_validate(read_json(Path(storage.here(place))))
        lineage.verify()
    except ValidationError as error:
        raise DataError(f"{place} is no lineage") from error
    except DataError as error:
        if "altered" in error.what:
            raise _Altered(error.what) from error
        raise
    evaluated = lineage.of("evaluate")
    if (
        lineage.steps_sha256() != candidate.evidence.get("steps")
        or evaluated is None
        or evaluated.facts.get("metrics") != candidate.metrics
    ):
        raise _Altered(f"{place} is the lineage of another candidate")
    return lineage


def _captions(candidate: Candidate) -> pd.DataFrame:
    expected, place = _hash(candidate, "captions"), _place(candidate, "captions")
    folder = storage.here(place)
    if sha256_tree(folder) != expected:
        raise _Altered(f"{place} are not the captions that the model was trained on")
    return read_manifest(folder, captioned=True)
