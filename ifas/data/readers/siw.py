"""SiW (Liu et al., CVPR 2018): 165 subjects, 4,620 videos.

    <Train|Test>/<live|spoof>/<SubjectID>/<Subject>-<Sensor>-<Type>-<Medium>-<Session>.mov   with .face boxes beside it

Type 1 is bona fide, 2 print, 3 replay.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ifas.data.readers.sample import RawSample, Refusal, Scan, train_or_dev
from ifas.data.readers.tree import Layout, Parsed, scan_tree

LAYOUT = Layout(
    name="siw",
    expected="<Train|Test>/<live|spoof>/<SubjectID>/<Subject>-<Sensor 1-2>-<Type 1-3>-<Medium 1-4>-<Session 1-2>.mov",
    licence="SiW: MSU data release agreement, research only, no redistribution",
    description="SiW, its own split; dev cut out of train by subject",
    side_files=r".*\.(face|txt|pdf)",
)
SPECIES = {"1": "live", "2": "print", "3": "replay"}
_PATH = re.compile(
    r"(?:.*/)?(Train|Test)/(live|spoof)/(\d+)/(\d+)-([12])-([123])-([1-4])-([12])\.(?:mov|mp4|avi)",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True)
class Siw:
    """Reader of the distributed layout."""

    def scan(self, root: Path) -> Scan:
        """All videos below `root`; a path that contradicts itself is refused.

        Raises:
            DataError: the layout is another one.
        """

        def parse(source: str) -> Parsed:
            match = _PATH.fullmatch(source)
            if not match:
                return None
            split, kind, folder, named, sensor, type_, medium, session = match.groups()
            if int(folder) != int(named):
                return Refusal(source, f"lies in the folder of subject {folder} but is named after subject {named}")
            if (kind.lower() == "live") != (type_ == "1"):
                return Refusal(source, f"lies in {kind}/ but its type is {type_} ({SPECIES[type_]})")
            subject = f"{int(folder):03d}"
            return RawSample(
                path=os.path.join(root, source),
                source=source,
                domain=LAYOUT.name,
                subject_id=subject,
                media_id=source.rpartition(".")[0],
                split="test" if split.lower() == "test" else train_or_dev(subject),
                pai_species=SPECIES[type_],
                device=f"sensor {sensor}",
                environment=f"session {session}",
                attack=None if type_ == "1" else {"medium": int(medium)},
                container="video",
            )

        return scan_tree(root, LAYOUT, parse)
