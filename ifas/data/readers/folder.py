"""Images in folders: `<domain>/<live | spoof type | PAI species>/<subject>/<image>`.

Beside the domains there may be

- `dataset.json`: name, licence, synthetic, description;
- `samples.jsonl`: one JSON object per image with what a folder name can't say (split, device, face box, ground truth
  of a staged attack). Where it is there, it decides, and the folder names are only a place to put files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ifas.core.errors import DataError
from ifas.core.manifest import DATASET_FILE, SAMPLES_FILE
from ifas.core.taxonomy import PAI_SPECIES, SPLITS, spoof_type_of
from ifas.data.readers.sample import IMAGE_SUFFIXES, RawSample, Refusal, Scan, split_of
from ifas.data.readers.tree import NOT_TEXT, below, is_text, printable

_EXPECTED = "expected <domain>/<live|spoof type|PAI species>/<subject>/<image>"
_TEXTS = ("path", "domain", "subject_id", "media_id", "split", "pai_species")


@dataclass(frozen=True)
class Folder:
    """Reader of the folder layout. A subject folder of one name is one person in every domain."""

    def scan(self, root: Path) -> Scan:
        """All images below `root`. Without `samples.jsonl` the split follows from a hash of the subject (60/15/25).

        Raises:
            DataError: no image fits the layout, a type folder is not in the taxonomy, or `samples.jsonl` is unusable;
                names the first path or line that did not fit.
        """
        if not root.is_dir():
            raise DataError(f"{root} is not a folder", f"point to the dataset's root: {_EXPECTED}")
        about = _about(root)
        licence = str(about.get("licence", about.get("license", "")))
        synthetic = bool(about.get("synthetic", False))
        files = list(_files(root))
        samples: list[RawSample] = []
        refused: list[Refusal] = []
        if (root / SAMPLES_FILE).is_file():
            for found in _listed(root, licence, synthetic):
                (samples if isinstance(found, RawSample) else refused).append(found)  # type: ignore[arg-type]
        else:
            refused = [Refusal(printable(f), NOT_TEXT) for f in files if not is_text(f)]
            samples = [s for f in files if is_text(f) and (s := _from_path(root, f, licence, synthetic))]
        if not samples and not refused:
            first = f"; first path that did not fit: {files[0]}" if files else "; it holds no files"
            raise DataError(f"{root}: no image found: {_EXPECTED}{first}", "point to the folder above the domains")
        known = {s.source for s in samples} | {r.source for r in refused}
        return Scan(
            name=str(about.get("name", root.resolve().name)),
            samples=tuple(samples),
            refused=tuple(refused),
            unrecognised=tuple(sorted(p for f in files if (p := printable(f)) not in known)),
            licence=licence,
            notes=tuple(str(note) for note in about.get("notes", ())),
            description=str(about.get("description", "")),
            synthetic=synthetic,
        )


def _about(root: Path) -> dict[str, Any]:
    file = root / DATASET_FILE
    if not file.is_file():
        return {}
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}", "correct it, or delete it") from error
    if not isinstance(about, dict):
        raise DataError(f"{file} holds a {type(about).__name__}, an object is needed", "correct it, or delete it")
    return about


def _files(root: Path) -> Iterator[str]:
    """Relative POSIX paths of all files but the two that describe the dataset."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        above = below(root, folder)
        for name in sorted(n for n in names if not n.startswith(".")):
            source = above + name
            if source not in (DATASET_FILE, SAMPLES_FILE):
                yield source


def _from_path(root: Path, source: str, licence: str, synthetic: bool) -> RawSample | None:
    parts = source.split("/")
    if len(parts) != 4 or os.path.splitext(parts[3])[1].lower() not in IMAGE_SUFFIXES:
        return None
    domain, species, subject, _ = parts
    if species not in PAI_SPECIES:
        raise DataError(
            f"{root / source}: folder {species!r} is no spoof type or PAI species: {_EXPECTED}",
            f"rename it to one of: {', '.join(PAI_SPECIES)}",
        )
    return RawSample(
        path=os.path.join(root, source),
        source=source,
        domain=domain,
        subject_id=subject,
        # The whole path: a bare file name such as 0001 is not one photo in every subject's folder.
        media_id=source.rpartition(".")[0],
        split=split_of(subject),
        pai_species=species,
        licence=licence,
        synthetic=synthetic,
    )


def _listed(root: Path, licence: str, synthetic: bool) -> Iterator[RawSample | Refusal]:
    seen: set[str] = set()
    with (root / SAMPLES_FILE).open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{root / SAMPLES_FILE}, line {number} is not UTF-8: {error.reason}") from error
            if line.strip():
                where = f"{root / SAMPLES_FILE}, line {number}"
                row = _checked(line, where)
                if row["path"] in seen:
                    raise DataError(f"{where}: path {row['path']!r} is listed twice", "keep one of the lines")
                seen.add(row["path"])
                yield _from_row(root, row, licence, synthetic)


def _checked(line: str, where: str) -> dict[str, Any]:
    fix = f"every line is a JSON object with at least {', '.join(_TEXTS)}"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}", fix) from error
    if not isinstance(row, dict):
        raise DataError(f"{where} holds a {type(row).__name__}", fix)
    wrong = [key for key in _TEXTS if not isinstance(row.get(key), str) or not row[key]]
    if wrong:
        raise DataError(f"{where}: missing or not text: {', '.join(wrong)}", fix)
    path = PurePosixPath(row["path"])
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{where}: path {row['path']!r} leaves the dataset", "use paths relative to samples.jsonl")
    if row["split"] not in SPLITS:
        raise DataError(f"{where}: split {row['split']!r}", f"use one of: {', '.join(SPLITS)}")
    if row["pai_species"] not in PAI_SPECIES:
        raise DataError(
            f"{where}: PAI species {row['pai_species']!r} is not in the taxonomy",
            f"use one of: {', '.join(PAI_SPECIES)}",
        )
    box = row.get("face_box")
    if box is not None and not (
        isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)
    ):
        raise DataError(f"{where}: face_box {box!r}", "four numbers x, y, w, h in pixels, or null")
    return row


def _from_row(root: Path, row: dict[str, Any], licence: str, synthetic: bool) -> RawSample | Refusal:
    spoof_type = spoof_type_of(row["pai_species"])
    label = "live" if spoof_type == "live" else "spoof"
    for key, expected in (("spoof_type", spoof_type), ("label", label)):
        if row.get(key, expected) != expected:
            return Refusal(row["path"], f"{key} is {row[key]!r} but PAI species is {row['pai_species']!r}")
    if not (root / row["path"]).is_file():
        return Refusal(row["path"], "listed in samples.jsonl but the file is not there")
    box = row.get("face_box")
    return RawSample(
        path=os.path.join(root, row["path"]),
        source=row["path"],
        domain=row["domain"],
        subject_id=row["subject_id"],
        media_id=row["media_id"],
        track_id=row.get("track_id"),
        frame_index=row.get("frame_index"),
        split=row["split"],
        pai_species=row["pai_species"],
        device=row.get("device"),
        environment=row.get("environment"),
        illumination=row.get("illumination"),
        face_box=None if box is None else (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
        licence=row.get("licence") or licence,
        synthetic=bool(row.get("synthetic", synthetic)),
        attack=row.get("attack") or None,
    )
