"""Rose-Youtu (Li et al., TIFS 2018), public part: 20 subjects, 3,350 videos.

    <train|test>/<id>/<L>_<T|NT>_<device>_<g|wg>_E_<person>_<n>.mp4

L is G for bona fide; Ps and Pq are a still and a quivering print, Vl and Vm videos on two laptops, Mc, Mf and Mu a
cropped, a full and an upper-face paper mask.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ifas.data.readers.sample import RawSample, Scan, train_or_dev
from ifas.data.readers.tree import Layout, Parsed, scan_tree

LAYOUT = Layout(
    name="rose-youtu",
    expected="<train|test>/<id>/<G|Ps|Pq|Vl|Vm|Mc|Mf|Mu>_<T|NT>_<HS|HW|IP|5s|ZTE>_<g|wg>_E_<person>_<n>.mp4",
    licence="Rose-Youtu: ROSE Lab agreement, research only, no redistribution",
    description="Rose-Youtu, public part; dev cut out of train by subject",
    side_files=r".*\.(txt|pdf|md|csv)",
)
SPECIES = {
    "G": "live",
    "Ps": "print.still",
    "Pq": "print.quivering",
    "Vl": "replay.laptop",
    "Vm": "replay.laptop",
    "Mc": "mask.paper_cropped",
    "Mf": "mask.paper_full",
    "Mu": "mask.paper_upper",
}
_PATH = re.compile(
    r"(?:.*/)?(train|test)/[^/]+/(G|Ps|Pq|Vl|Vm|Mc|Mf|Mu)_(T|NT)_(HS|HW|IP|5s|ZTE)_(g|wg)_E_(\d+)_(\d+)\.(?:mp4|avi|mov)"
)


@dataclass(frozen=True)
class RoseYoutu:
    """Reader of the distributed layout."""

    def scan(self, root: Path) -> Scan:
        """All videos below `root`. Raises DataError where the layout is another one."""

        def parse(source: str) -> Parsed:
            match = _PATH.fullmatch(source)
            if not match:
                return None
            split, kind, _, device, _, person, _ = match.groups()
            return RawSample(
                path=os.path.join(root, source),
                source=source,
                domain=LAYOUT.name,
                subject_id=person,
                media_id=source.rpartition(".")[0],
                split="test" if split == "test" else train_or_dev(person),
                pai_species=SPECIES[kind],
                device=device,
                environment="indoor",
                attack={"medium": kind} if kind.startswith("V") else None,
                container="video",
            )

        return scan_tree(root, LAYOUT, parse)
