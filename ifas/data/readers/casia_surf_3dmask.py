"""CASIA-SURF 3DMask (Yu et al., TPAMI 2020): 48 subjects; a mannequin or person wears a 3-D printed mask of a face.

    Real/<subject>/<1|15|16|17|22|23>.MOV                      six kinds of light
    Fake/<subject>/<decoration 1-3>/<light 1-6>.MOV

The distribution has no splits: they are cut by subject, which is our choice. A list of paths and labels beside the
videos is only compared with the paths, since public lists differ in polarity.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ifas.data.readers.listed import label_lists
from ifas.data.readers.sample import RawSample, Scan, split_of
from ifas.data.readers.tree import Layout, Parsed, scan_tree

LAYOUT = Layout(
    name="casia-surf-3dmask",
    expected="Real/<subject>/<1|15|16|17|22|23>.MOV and Fake/<subject>/<decoration 1-3>/<light 1-6>.MOV",
    licence="CASIA-SURF 3DMask: CASIA request form, research only, no redistribution",
    description="CASIA-SURF 3DMask; splits cut by subject",
    side_files=r".*\.(txt|pdf|md)",
)
_PATH = re.compile(
    r"(?:.*/)?(?:Real/([^/]+)/(1|15|16|17|22|23)|Fake/([^/]+)/([1-3])/([1-6]))\.(?:mov|mp4|avi)",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True)
class CasiaSurf3dMask:
    """Reader of the distributed layout."""

    def scan(self, root: Path) -> Scan:
        """All videos below `root`. Raises DataError where the layout is another one."""
        refused, notes = label_lists(root, live=r"(^|/)Real/", attack=r"(^|/)Fake/")

        def parse(source: str) -> Parsed:
            match = _PATH.fullmatch(source)
            if not match:
                return None
            real = match[1] is not None
            subject = match[1] if real else match[3]
            return refused.get(source) or RawSample(
                path=os.path.join(root, source),
                source=source,
                domain=LAYOUT.name,
                subject_id=subject,
                media_id=source.rpartition(".")[0],
                split=split_of(subject),
                pai_species="live" if real else "mask.rigid3d",
                illumination=f"light {match[2] if real else match[5]}",
                attack=None if real else {"decoration": int(match[4])},
                container="video",
            )

        return scan_tree(root, LAYOUT, parse, notes=notes)
