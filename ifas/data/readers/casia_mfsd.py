"""CASIA-MFSD, also CASIA-FASD (Zhang et al., ICB 2012): 50 subjects, 600 videos.

    <train_release|test_release>/<subject>/<1..8|HR_1..HR_4>.avi

Subject numbers start again at 1 in each split, so a subject is known by split and number.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ifas.data.readers.sample import RawSample, Scan, train_or_dev
from ifas.data.readers.tree import Layout, Parsed, scan_tree

LAYOUT = Layout(
    name="casia-mfsd",
    expected="<train_release|test_release>/<subject>/<1..8|HR_1..HR_4>.avi",
    licence="CASIA-MFSD: signed CBSR agreement, research only, no redistribution",
    description="CASIA-MFSD; dev cut out of train by subject",
    side_files=r".*\.(txt|pdf|doc|m)",
)
#: File name -> PAI species and quality of the camera.
SPECIES = {
    **dict.fromkeys(("1", "2", "HR_1"), "live"),
    **dict.fromkeys(("3", "4", "HR_2"), "print.warped"),
    **dict.fromkeys(("5", "6", "HR_3"), "print.cut_eyes"),
    **dict.fromkeys(("7", "8", "HR_4"), "replay.tablet"),
}
_PATH = re.compile(r"(?:.*/)?(train|test)_release/(\d+)/(HR_[1-4]|[1-8])\.avi", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class CasiaMfsd:
    """Reader of the distributed layout."""

    def scan(self, root: Path) -> Scan:
        """All videos below `root`. Raises DataError where the layout is another one."""

        def parse(source: str) -> Parsed:
            match = _PATH.fullmatch(source)
            if not match:
                return None
            split, number, name = match[1].lower(), match[2], match[3].upper()
            subject = f"{split}-{int(number)}"
            quality = "high" if name.startswith("HR") else "low" if int(name) % 2 else "normal"
            return RawSample(
                path=os.path.join(root, source),
                source=source,
                domain=LAYOUT.name,
                subject_id=subject,
                media_id=f"{subject}/{name}",
                split="test" if split == "test" else train_or_dev(subject),
                pai_species=SPECIES[name],
                device=f"{quality} quality camera",
                environment="indoor",
                container="video",
            )

        return scan_tree(root, LAYOUT, parse)
