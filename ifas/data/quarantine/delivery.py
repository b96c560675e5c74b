"""A batch of new spoof data before it enters a dataset. One row without a label, or a wrong one, refuses the batch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ifas.core.errors import DataError
from ifas.core.files import sha256_file
from ifas.core.manifest import SAMPLES_FILE
from ifas.core.phash import confirmed, words
from ifas.core.taxonomy import spoof_type_of
from ifas.data.readers.sample import IMAGE_SUFFIXES, RawSample, Refusal, split_of

if TYPE_CHECKING:
    import pandas as pd

#: Perceptual hashes at most this many bits apart are the same picture.
SAME_PICTURE_BITS = 2
#: Offending rows that the error prints; the exception carries all.
LISTED = 20


class BatchRefused(DataError):
    """A batch with unlabelled or contradicting rows; `rows` lists every one."""

    def __init__(self, root: Path, rows: Iterable[Refusal], fix: str) -> None:
        self.rows = tuple(sorted(rows))
        shown = "\n".join(f"    {row.source}: {row.reason}" for row in self.rows[:LISTED])
        more = f"\n    and {len(self.rows) - LISTED} more" if len(self.rows) > LISTED else ""
        super().__init__(f"batch {root} is refused for {len(self.rows)} row(s):\n{shown}{more}", fix)


@dataclass(frozen=True)
class Batch:
    """Checked rows of a batch and the images that its dataset holds already."""

    samples: tuple[RawSample, ...]
    duplicates: tuple[str, ...]


@dataclass(frozen=True)
class Delivery:
    """What was delivered: image files, sorted, and what is said of each (path -> columns), paths relative to `root`."""

    root: Path
    files: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Any]]


def read_delivery(root: Path) -> Delivery:
    """The images of a delivery: `<subject>/<image>`, with a `samples.jsonl` beside them where it says more.

    A line of `samples.jsonl` needs `path`; `subject_id`, `media_id`, `label`, `spoof_type`, `pai_species`, `domain`,
    `device`, `environment`, `illumination`, `face_box` and `attack` are optional, and none may contradict the batch.

    Raises:
        DataError: no images, or an unreadable `samples.jsonl`.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder", "point to a folder of <subject>/<image>")
    files = sorted(_images(root))
    if not files:
        endings = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"{root} holds no images", f"put images there as <subject>/<image> ({endings})")
    return Delivery(root, tuple(files), _rows(root, files))


def check_delivery(
    delivery: Delivery, *, name: str, species: str, domain: str, licence: str, known: Mapping[str, str]
) -> Batch:
    """The rows of a batch, once all of them are checked.

    Subjects are those of the batch alone: nothing says that subject 1 of a delivery is subject 1 of the dataset.

    Args:
        name: of the batch.
        species: PAI species of every image; `live` for bona fide.
        known: sample id -> PAI species of the dataset.

    Raises:
        BatchRefused: rows without a subject, rows that contradict the batch's species or the dataset, unlisted or
            unreadable images.
        DataError: an unknown species, or every image is in the dataset already.
    """
    spoof_type_of(species)
    root, files, rows = delivery.root, delivery.files, delivery.rows
    offending: list[Refusal] = []
    samples: list[RawSample] = []
    duplicates: list[str] = []
    for source in files:
        row = rows.get(source)
        if row is None:
            offending.append(Refusal(source, f"not labelled: {SAMPLES_FILE} does not list it"))
            continue
        problem = _problem(row, species, domain)
        if not (root / source).is_file():
            offending.append(Refusal(source, "can't be read: not a file"))
            continue
        try:
            digest = sha256_file(root / source)
        except OSError as error:
            offending.append(Refusal(source, f"can't be read: {error.strerror or error}"))
            continue
        if problem is None and digest in known and known[digest] != species:
            problem = f"the dataset holds the same bytes as {known[digest]}, this batch says {species}"
        if problem is not None:
            offending.append(Refusal(source, problem))
        elif digest in known:
            duplicates.append(source)
        else:
            samples.append(_sample(root, source, row, name, species, domain, licence))
    offending += [
        Refusal(source, f"listed in {SAMPLES_FILE} but not there") for source in sorted(set(rows) - set(files))
    ]
    if offending:
        raise BatchRefused(root, offending, "correct or remove these rows, then add the batch again; nothing was added")
    if not samples:
        raise DataError(f"every image of {root} is in the dataset already", "there is nothing to add")
    return Batch(tuple(samples), tuple(duplicates))


def same_picture_other_label(batch: pd.DataFrame, dataset: pd.DataFrame) -> list[Refusal]:
    """Rows of a packed batch that look the same as a row of the dataset with the other label.

    Compares the perceptual hashes in the column `phash`, null where a picture can't be decoded. Attacks on the same
    portrait differ by far more than `SAME_PICTURE_BITS` of their 64 coarse bits.
    """
    import numpy as np

    found = []
    dataset = dataset[dataset["phash"].notna()]
    others = {
        label: dataset[dataset["label"] != label][["phash", "source", "label"]] for label in sorted(set(batch["label"]))
    }
    tables = {label: words(rows["phash"]) for label, rows in others.items()}
    for row, value in zip(batch.itertuples(index=False), words(batch["phash"]), strict=True):
        table = tables[row.label]
        near = np.flatnonzero(np.bitwise_count(table[:, 0] ^ value[0]) <= SAME_PICTURE_BITS)
        near = near[confirmed(table[near], value)]
        if near.size:
            other = others[row.label].iloc[int(near[0])]
            found.append(
                Refusal(row.source, f"labelled {row.label}, but looks the same as {other['source']} ({other['label']})")
            )
    return found


def _images(root: Path) -> Iterable[str]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in names:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _rows(root: Path, files: list[str]) -> dict[str, dict[str, Any]]:
    """What is said of each image: by samples.jsonl where it is there, else by its folder."""
    listing = root / SAMPLES_FILE
    if not listing.is_file():
        return {f: {"subject_id": PurePosixPath(f).parts[0]} if len(PurePosixPath(f).parts) == 2 else {} for f in files}
    rows: dict[str, dict[str, Any]] = {}
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{listing} can't be read: {error}", "it must be UTF-8 text") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{listing}, line {number} is not JSON: {error}", "one JSON object a line") from error
        path = row.get("path") if isinstance(row, dict) else None
        if not isinstance(path, str) or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise DataError(f"{listing}, line {number}: no usable path", "a path relative to samples.jsonl")
        if path in rows:
            raise DataError(f"{listing}, line {number}: {path} is listed twice", "keep one of the lines")
        rows[path] = row
    return rows


def _problem(row: Mapping[str, Any], species: str, domain: str) -> str | None:
    """Why a row can't be taken, or None."""
    if not isinstance(row.get("subject_id"), str) or not row["subject_id"]:
        return "not labelled: no subject (put it in a folder of the subject's name)"
    spoof_type = spoof_type_of(species)
    expected = {
        "pai_species": species,
        "spoof_type": spoof_type,
        "label": "live" if spoof_type == "live" else "spoof",
        "domain": domain,
    }
    for key, value in expected.items():
        if row.get(key, value) != value:
            return f"{key} is {row[key]!r}, the batch says {value!r}"
    box = row.get("face_box")
    if box is not None and not (
        isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
    ):
        return f"face_box {box!r} is not four numbers x, y, w, h"
    return None


def _sample(
    root: Path, source: str, row: Mapping[str, Any], name: str, species: str, domain: str, licence: str
) -> RawSample:
    def text(key: str) -> str | None:
        value = row.get(key)
        return value if isinstance(value, str) else None

    subject = f"{name}/{row['subject_id']}"
    box = row.get("face_box")
    return RawSample(
        path=os.path.join(root, source),
        source=f"{name}/{source}",
        domain=domain,
        subject_id=subject,
        media_id=f"{name}/{text('media_id') or source.rpartition('.')[0]}",
        split=split_of(subject),
        pai_species=species,
        device=text("device"),
        environment=text("environment"),
        illumination=text("illumination"),
        face_box=None if box is None else (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
        licence=licence,
        synthetic=row.get("synthetic") is True,
        attack=row["attack"] if isinstance(row.get("attack"), dict) else None,
    )
