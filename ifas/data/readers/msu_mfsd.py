"""MSU-MFSD (Wen et al., TIFS 2015): 35 public subjects, 280 videos.

    scene01/real/real_client###_<android|laptop>_SD_scene01.{mp4|mov}
    scene01/attack/attack_client###_<android|laptop>_SD_<ipad_video|iphone_video|printed_photo>_scene01.{mp4|mov}
    train_sub_list.txt, test_sub_list.txt            subject numbers, one a line

Videos of the phone end in .mp4, those of the laptop in .mov.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ifas.core.errors import DataError
from ifas.core.taxonomy import Split
from ifas.data.readers.sample import RawSample, Refusal, Scan, train_or_dev
from ifas.data.readers.tree import Layout, Parsed, read_list, scan_tree

LAYOUT = Layout(
    name="msu-mfsd",
    expected="scene01/<real|attack>/<real|attack>_client###_<android|laptop>_SD_[<medium>_]scene01.<mp4|mov> and "
    "train_sub_list.txt, test_sub_list.txt",
    licence="MSU-MFSD: by request, research only, no redistribution",
    description="MSU-MFSD, its own list of subjects; dev cut out of train by subject",
    side_files=r".*\.(txt|face|pdf|m)",
)
SPECIES = {"ipad_video": "replay.tablet", "iphone_video": "replay.phone", "printed_photo": "print.photo"}
LISTS: dict[Split, str] = {"train": "train_sub_list.txt", "test": "test_sub_list.txt"}
_PATH = re.compile(
    r"(?:.*/)?scene01/(?:real/real|attack/attack)_client(\d{3})_(android|laptop)_SD_"
    r"(?:(ipad_video|iphone_video|printed_photo)_)?scene01\.(mp4|mov)",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True)
class MsuMfsd:
    """Reader of the distributed layout."""

    def scan(self, root: Path) -> Scan:
        """All videos below `root`; a subject that no list names is refused, since its split is not known.

        Raises:
            DataError: the layout is another one, a list of subjects is missing, or a subject is in both.
        """
        splits: dict[int, Split] = {}
        for split, name in LISTS.items():
            found = sorted(root.rglob(name)) if root.is_dir() else []
            if not found:
                raise DataError(
                    f"{root / name} is not there; expected {LAYOUT.expected}", "unpack the lists beside scene01"
                )
            for row in read_list(found[0]):
                if not (row[0].isascii() and row[0].isdigit()) or splits.get(int(row[0]), split) != split:
                    raise DataError(
                        f"{found[0]}: {row[0]!r} is no subject number, or both lists have it",
                        "download it again",
                    )
                splits[int(row[0])] = split

        def parse(source: str) -> Parsed:
            match = _PATH.fullmatch(source)
            if not match or ("/real/" in f"/{source}") == bool(match[3]):
                return None
            client, device, medium = int(match[1]), match[2].lower(), match[3]
            if client not in splits:
                return Refusal(source, f"subject {client} is in none of {', '.join(LISTS.values())}")
            subject = f"client{client:03d}"
            return RawSample(
                path=os.path.join(root, source),
                source=source,
                domain=LAYOUT.name,
                subject_id=subject,
                media_id=source.rpartition(".")[0],
                split="test" if splits[client] == "test" else train_or_dev(subject),
                pai_species=SPECIES[medium.lower()] if medium else "live",
                device=device,
                environment="indoor",
                container="video",
            )

        return scan_tree(root, LAYOUT, parse)
