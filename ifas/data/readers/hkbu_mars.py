"""HKBU-MARs V2 (Liu et al., CVPRW 2016): 12 subjects and their 3-D masks, 7 cameras, 6 kinds of light.

    <real|attack>/<subject>/<camera 01-07>_<light 01-06>_<subject>.avi

A few file names drop the leading zero of the subject. The counts and the layout of V1+, which the paper's protocol
uses, are not known to us: give it in this layout. There are no splits; they are cut by subject, which is our choice.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ifas.data.readers.listed import label_lists
from ifas.data.readers.sample import RawSample, Refusal, Scan, split_of
from ifas.data.readers.tree import Layout, Parsed, scan_tree

LAYOUT = Layout(
    name="hkbu-mars",
    expected="<real|attack>/<subject>/<camera 01-07>_<light 01-06>_<subject>.avi",
    licence="HKBU-MARs: application to HKBU, research only, no redistribution",
    description="HKBU-MARs V2; splits cut by subject",
    side_files=r".*\.(txt|pdf|md)",
)
_PATH = re.compile(
    r"(?:.*/)?(real|attack)/(\d{1,2})/(0?[1-7])_(0?[1-6])_(\d{1,2})\.(?:avi|mp4|mov)", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True)
class HkbuMars:
    """Reader of the V2 layout."""

    def scan(self, root: Path) -> Scan:
        """All videos below `root`. Raises DataError where the layout is another one."""
        refused, notes = label_lists(root, live=r"(^|/)real/", attack=r"(^|/)attack/")

        def parse(source: str) -> Parsed:
            match = _PATH.fullmatch(source)
            if not match:
                return None
            kind, folder, camera, light, named = match[1].lower(), *(int(v) for v in match.groups()[1:])
            if folder != named:
                return Refusal(source, f"lies in the folder of subject {folder} but is named after subject {named}")
            subject = f"{folder:02d}"
            return refused.get(source) or RawSample(
                path=os.path.join(root, source),
                source=source,
                domain=LAYOUT.name,
                subject_id=subject,
                media_id=f"{kind}/{subject}/{camera:02d}_{light:02d}",
                split=split_of(subject),
                pai_species="live" if kind == "real" else "mask.rigid3d",
                device=f"camera {camera}",
                illumination=f"light {light}",
                container="video",
            )

        return scan_tree(root, LAYOUT, parse, notes=notes)
