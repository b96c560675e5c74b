"""NUAA Photograph Imposter Database (Tan et al., ECCV 2010): 15 subjects, frames of webcam videos.

    <Client|Imposter><Raw|Face>/<subject 0001-0016>/<subject>_<glasses>_<place>_<session>_<frame>.jpg
    client_train_raw.txt, imposter_train_raw.txt, client_test_raw.txt, imposter_test_raw.txt      (or _face)

NUAA's own train and test lists share subjects. No subject may cross a split here, so splits are cut by subject, which
is our choice and which a note says. Whole frames (`Raw`) are read where they are there, else the cropped faces.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ifas.core.taxonomy import Split
from ifas.data.readers.sample import RawSample, Scan, split_of
from ifas.data.readers.tree import Layout, Parsed, read_list, scan_tree

LAYOUT = Layout(
    name="nuaa",
    expected="ClientRaw/<subject>/<subject>_<..>_<..>_<session>_<frame>.jpg and the same below ImposterRaw"
    ", with lists such as client_train_raw.txt",
    licence="NUAA Imposter: research only, no redistribution",
    description="NUAA Imposter; splits cut by subject, since NUAA's own share subjects",
    side_files=r".*\.(txt|pdf|md|db)|(.*/)?(Client|Imposter)(Face|Normalized)/.*",
)
_PATH = re.compile(
    r"(?:.*/)?(Client|Imposter)(Raw|Face)/(\d{4})/(\d{4})_(\d\d)_(\d\d)_(\d\d)_(\d+)\.(?:jpg|bmp|png)",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True)
class Nuaa:
    """Reader of the distributed layout."""

    def scan(self, root: Path) -> Scan:
        """All frames below `root`. Raises DataError where the layout is another one."""
        raw = root.is_dir() and any(p.is_dir() for p in root.rglob("ClientRaw"))
        notes = _sides(root)

        def parse(source: str) -> Parsed:
            match = _PATH.fullmatch(source)
            if not match or (raw and match[2].lower() != "raw"):
                return None
            kind, _, subject, _, glasses, place, session, frame = match.groups()
            return RawSample(
                path=os.path.join(root, source),
                source=source,
                domain=LAYOUT.name,
                subject_id=subject,
                media_id=f"{kind.lower()}/{subject}_{glasses}_{place}_{session}",
                frame_index=int(frame),
                split=split_of(subject),
                pai_species="live" if kind.lower() == "client" else "print.photo",
                device="webcam",
                environment=f"session {int(session)}",
                illumination=f"place {int(place)}",
            )

        return scan_tree(root, LAYOUT, parse, notes=notes)


def _sides(root: Path) -> list[str]:
    """A note on the subjects that NUAA's own lists have on both sides."""
    sides: dict[str, set[Split]] = {}
    for file in sorted(root.rglob("*_*_*.txt")) if root.is_dir() else []:
        match = re.fullmatch(r"(client|imposter)_(train|test)_(raw|face)", file.stem.lower())
        if not match:
            continue
        split: Split = "train" if match[2] == "train" else "test"
        counts = Counter(PurePosixPath(row[0].replace("\\", "/")).name[:4] for row in read_list(file))
        for subject in counts:
            sides.setdefault(subject, set()).add(split)
    both = sorted(s for s, where in sides.items() if len(where) > 1)
    if not both:
        return []
    return [f"{len(both)} subjects are in NUAA's own train and test lists; splits are cut by subject instead"]
