"""CASIA-SURF HiFiMask (Liu et al., 2021): 75 subjects, 225 masks, ten cropped frames of each video.

    Data/<Skin>_<Subject>_<Type>_<Scene>_<Light>_<Sensor>/0000.png .. 0009.png

Type 0 is bona fide, 1 a transparent, 2 a plaster, 3 a resin mask. Skin is a code of the collectors and is not read.
Protocol lists (`*train*.txt`, `*dev*.txt`, `*test*.txt`) give the splits where they are there; else they are cut by
subject, which is our choice. A label in a list is only compared with the path.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ifas.core.taxonomy import Split
from ifas.data.readers.sample import RawSample, Refusal, Scan, split_of
from ifas.data.readers.tree import Layout, Parsed, checked_against, read_list, scan_tree

LAYOUT = Layout(
    name="hifimask",
    expected="Data/<Skin 1-3>_<Subject 01-75>_<Type 0-3>_<Scene 1-6>_<Light 0-6>_<Sensor 0-8>/0000.png",
    licence="HiFiMask: CASIA form, signed, research only, no redistribution",
    description="CASIA-SURF HiFiMask",
    side_files=r".*\.(txt|pdf|md)",
)
SPECIES = {"0": "live", "1": "mask.transparent", "2": "mask.plaster", "3": "mask.resin"}
SCENE = {"1": "white", "2": "green", "3": "tricolour", "4": "sunshine", "5": "shadow", "6": "motion"}
LIGHT = {"0": None, "1": "normal", "2": "dim", "3": "bright", "4": "back", "5": "side", "6": "top"}
SENSOR = ("SpO2", "iPhone 11", "iPhone X", "MI 10", "P40", "S20", "Vivo", "D435", "HJIM")
_VIDEO = re.compile(r"([1-3])_(\d\d)_([0-3])_([1-6])_([0-6])_([0-8])")
_PATH = re.compile(r"(?:.*/)?(" + _VIDEO.pattern + r")/(\d{4})\.(?:png|jpg)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class HiFiMask:
    """Reader of the distributed layout."""

    def scan(self, root: Path) -> Scan:
        """All frames below `root`. Raises DataError where the layout is another one."""
        splits, refused, notes = _protocol(root)

        def parse(source: str) -> Parsed:
            match = _PATH.fullmatch(source)
            if not match:
                return None
            video, _, subject, kind, scene, light, sensor, frame = match.groups()
            if video in refused:
                return Refusal(source, refused[video].reason)
            if splits and subject not in splits:
                return Refusal(source, f"subject {subject} is in no protocol list")
            return RawSample(
                path=os.path.join(root, source),
                source=source,
                domain=LAYOUT.name,
                subject_id=subject,
                media_id=video,
                frame_index=int(frame),
                split=splits[subject] if splits else split_of(subject),
                pai_species=SPECIES[kind],
                device=SENSOR[int(sensor)],
                environment=SCENE[scene],
                illumination=LIGHT[light],
            )

        return scan_tree(root, LAYOUT, parse, notes=notes)


def _protocol(root: Path) -> tuple[dict[str, Split], dict[str, Refusal], list[str]]:
    """Split of each listed subject, refused videos, notes."""
    splits: dict[str, Split] = {}
    refused: dict[str, Refusal] = {}
    notes: list[str] = []
    kinds: tuple[tuple[str, Split], ...] = (
        ("train", "train"),
        ("dev", "dev"),
        ("test", "test"),
        ("eval", "test"),
        ("val", "dev"),
    )
    for file in sorted(root.rglob("*.txt")) if root.is_dir() else []:
        split = next((split for word, split in kinds if word in file.stem.lower()), None)
        listed: dict[str, bool | None] = {}
        for row in read_list(file) if split else []:
            match = _VIDEO.search(row[0])
            if match and split:
                listed[match[0]] = row[-1] == "1" if row[-1] in ("0", "1") and len(row) > 1 else None
                if splits.setdefault(match[2], split) != split:
                    notes.append(
                        f"subject {match[2]} is in the lists of {splits[match[2]]} and {split}; kept in the first"
                    )
        live = {video: _VIDEO.fullmatch(video)[3] == "0" for video in listed}  # type: ignore[index]
        wrong, said = checked_against(listed, live, file.name)
        refused |= wrong
        notes += said
    return splits, refused, list(dict.fromkeys(notes))
