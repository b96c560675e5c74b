"""CelebA-Spoof (Zhang et al., ECCV 2020, arXiv 2007.12342) in the layout in which it is distributed.

    Data/<train|test>/<subject>/<live|spoof>/<image>.{jpg|png}    with <image>_BB.txt beside it
    metas/intra_test/{train_label,test_label}.json                image path -> 44 integers

Of the 44 integers the last four matter here: [40] spoof type, [41] illumination, [42] environment, [43] label;
the first forty are CelebA's face attributes and are not read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ifas.core.errors import DataError
from ifas.core.taxonomy import Split
from ifas.data.readers.sample import RawSample, Refusal, Scan, train_or_dev
from ifas.data.readers.tree import printable

SPECIES = {
    0: "live",
    1: "print.photo",
    2: "print.poster",
    3: "print.a4",
    4: "mask.paper_face",
    5: "mask.paper_upper_body",
    6: "mask.paper_region",
    7: "replay.pc",
    8: "replay.tablet",
    9: "replay.phone",
    10: "mask.rigid3d",
}
ILLUMINATION = {0: None, 1: "normal", 2: "strong", 3: "back", 4: "dark"}
ENVIRONMENT = {0: None, 1: "indoor", 2: "outdoor"}
LABEL = {0: "live", 1: "spoof"}

LICENCE = "CelebA-Spoof terms: non-commercial research only, no redistribution"
LABEL_FILES = {"train": "metas/intra_test/train_label.json", "test": "metas/intra_test/test_label.json"}
#: Boxes are given in a frame of this size, whatever the image's.
BOX_FRAME = (224, 224)

_PATH = re.compile(r"Data/(train|test)/([^/]+)/(live|spoof)/([^/]+)\.(?:jpe?g|png)", re.IGNORECASE | re.ASCII)
_EXPECTED = "expected Data/<train|test>/<subject>/<live|spoof>/<image>.{jpg|png} and metas/intra_test/*_label.json"


@dataclass(frozen=True)
class CelebASpoof:
    """Reader of the distributed layout. Subjects are the folder names; `dev` is cut out of `train` by subject."""

    def scan(self, root: Path) -> Scan:
        """All labelled images below `root`.

        The published labels contradict themselves for some images (a `live` folder with a spoof label): those are
        refused one by one with their path. A path that does not fit the layout ends the scan.

        Raises:
            DataError: the layout is another one; names the first path that did not fit.
        """
        labels = [(split, file) for split, file in LABEL_FILES.items() if (root / file).is_file()]
        if not labels or not (root / "Data").is_dir():
            missing = root / ("Data" if labels else LABEL_FILES["train"])
            raise DataError(f"{missing} is not there: {_EXPECTED}", "point to the folder that holds Data/ and metas/")
        samples: list[RawSample] = []
        refused: list[Refusal] = []
        listed: set[str] = set()
        notes: list[str] = []
        for split, file in labels:
            absent: list[str] = []
            for source, row in _rows(root, file, split):
                listed.add(source)
                if not (root / source).is_file():
                    absent.append(source)
                    continue
                found = _sample(root, source, row)
                (samples if isinstance(found, RawSample) else refused).append(found)  # type: ignore[arg-type]
            if absent:
                notes.append(f"{len(absent)} images listed in {file} are not there; first: {absent[0]}")
        if not samples and not refused:
            raise DataError(f"{root}: no image that the label files list is there", "unpack the archives of Data/ too")
        return Scan(
            name="celeba-spoof",
            samples=tuple(samples),
            refused=tuple(refused),
            unrecognised=tuple(_unlisted(root, listed)),
            notes=tuple(notes),
            licence=LICENCE,
            description="CelebA-Spoof, protocol intra_test; dev cut out of train by subject",
        )


def _rows(root: Path, file: str, split: str) -> Iterator[tuple[str, list[int]]]:
    """Path and integers of each entry of a label file, both checked."""
    try:
        table = json.loads((root / file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{root / file} is not JSON: {error}", "download it again") from error
    if not isinstance(table, dict):
        raise DataError(f"{root / file} holds a {type(table).__name__}: expected image path -> 44 integers")
    for source, row in table.items():
        match = _PATH.fullmatch(source)
        if not match or match[1].lower() != split or ".." in PurePosixPath(source).parts:
            raise DataError(f"{root / file}: path {source!r} does not fit: {_EXPECTED}", "use the original label files")
        if not isinstance(row, list) or len(row) != 44 or not all(type(v) is int for v in row):
            raise DataError(f"{root / file}: entry of {source!r} is not a list of 44 integers", "download it again")
        yield source, row


def _sample(root: Path, source: str, row: list[int]) -> RawSample | Refusal:
    _, split_folder, subject, kind, image = PurePosixPath(source).parts
    spoof, illumination, environment, label = row[40:]
    tables: tuple[tuple[str, int, dict[int, Any]], ...] = (
        ("spoof type [40]", spoof, SPECIES),
        ("illumination [41]", illumination, ILLUMINATION),
        ("environment [42]", environment, ENVIRONMENT),
        ("label [43]", label, LABEL),
    )
    for what, value, table in tables:
        if value not in table:
            return Refusal(source, f"{what} is {value}, known are {min(table)} to {max(table)}")
    if LABEL[label] != kind.lower():
        return Refusal(source, f"lies in folder {kind}/ but label [43] is {label} ({LABEL[label]})")
    if (spoof == 0) != (label == 0):
        return Refusal(source, f"label [43] is {label} ({LABEL[label]}) but spoof type [40] is {spoof}")
    split: Split = "test"
    if split_folder.lower() == "train":
        split = train_or_dev(subject)
    path = os.path.join(root, source)
    return RawSample(
        path=path,
        source=source,
        domain="celeba-spoof",
        subject_id=subject,
        media_id=f"{subject}/{kind}/{Path(image).stem}",
        split=split,
        pai_species=SPECIES[spoof],
        illumination=ILLUMINATION[illumination],
        environment=ENVIRONMENT[environment],
        face_box=_box(os.path.splitext(path)[0] + "_BB.txt"),
        box_frame=BOX_FRAME,
        licence=LICENCE,
    )


def _box(file: str) -> tuple[float, float, float, float] | None:
    """x, y, w, h of the first line (a score follows); None where there is no readable box, as for some images."""
    try:
        x, y, w, h = (float(v) for v in Path(file).read_text(encoding="ascii").split()[:4])
    except (OSError, ValueError):
        return None
    return (x, y, w, h)


def _unlisted(root: Path, listed: set[str]) -> Iterator[str]:
    """Files below Data/ that no label file lists, boxes apart."""
    for folder, folders, files in os.walk(root / "Data"):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(files):
            if name.startswith("."):
                continue
            source = (Path(folder) / name).relative_to(root).as_posix()
            if source not in listed and not name.endswith("_BB.txt"):
                yield printable(source)
