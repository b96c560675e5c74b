"""OULU-NPU (Boulkenafet et al., FG 2017): 55 users, 6 phones, 3 sessions.

    <Train|Dev|Test>_files/<Phone>_<Session>_<User>_<File>.avi      with .txt eye positions beside it

File 1 is bona fide, 2 and 3 are prints of two printers, 4 and 5 replays on two displays.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ifas.core.taxonomy import Split
from ifas.data.readers.sample import RawSample, Scan
from ifas.data.readers.tree import Layout, Parsed, scan_tree

LAYOUT = Layout(
    name="oulu-npu",
    expected="<Train|Dev|Test>_files/<Phone 1-6>_<Session 1-3>_<User>_<File 1-5>.avi",
    licence="OULU-NPU: EULA signed by a university, research only, no redistribution",
    description="OULU-NPU, its own three splits",
    side_files=r".*\.(txt|pdf)|(.*/)?Protocols/.*",
)
SPLITS: dict[str, Split] = {"train": "train", "dev": "dev", "test": "test"}
SPECIES = {"1": "live", "2": "print", "3": "print", "4": "replay", "5": "replay"}
INSTRUMENT = {"2": "printer 1", "3": "printer 2", "4": "display 1", "5": "display 2"}
_PATH = re.compile(r"(?:.*/)?(Train|Dev|Test)_files/([1-6])_([1-3])_(\d\d?)_([1-5])\.avi", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class OuluNpu:
    """Reader of the distributed layout."""

    def scan(self, root: Path) -> Scan:
        """All videos below `root`. Raises DataError where the layout is another one."""

        def parse(source: str) -> Parsed:
            match = _PATH.fullmatch(source)
            if not match:
                return None
            split, phone, session, user, file = match.groups()
            return RawSample(
                path=os.path.join(root, source),
                source=source,
                domain=LAYOUT.name,
                subject_id=f"user{int(user):02d}",
                media_id=f"{phone}_{session}_{int(user)}_{file}",
                split=SPLITS[split.lower()],
                pai_species=SPECIES[file],
                device=f"phone {phone}",
                environment=f"session {session}",
                attack={"instrument": INSTRUMENT[file]} if file in INSTRUMENT else None,
                container="video",
            )

        return scan_tree(root, LAYOUT, parse)
