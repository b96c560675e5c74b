"""SiW-M v2 (Guo et al., ECCV 2022): 785 bona fide and 915 attack videos of 14 types.

    Live/Live_<n>.*
    Spoof/<type>/<prefix>_<n>.*

Files carry the prefix of the protocol lists (`Mask_Mann`, `Makeup_Co`, `Paper`, ...), folders the full name; both are
understood, and must agree. The distribution says nothing about who is in a video: each video is a subject of its own,
and splits are cut by it, which is our choice.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ifas.data.readers.sample import VIDEO_SUFFIXES, RawSample, Refusal, Scan, split_of
from ifas.data.readers.tree import Layout, Parsed, scan_tree

LAYOUT = Layout(
    name="siw-m-v2",
    expected="Live/Live_<n>.mov and Spoof/<type>/<type or its prefix in the protocol lists>_<n>.mov",
    licence="SiW-M v2: MSU data release agreement, research only, no redistribution",
    description="SiW-M v2; splits cut by video",
    side_files=r".*\.(txt|pdf|md|face|csv)",
)
#: Folder -> PAI species, and the prefix of its files in the protocol lists.
TYPES = {
    "Makeup_Cosmetic": ("mask.makeup_cosmetic", "Makeup_Co"),
    "Makeup_Impersonation": ("mask.makeup_impersonation", "Makeup_Im"),
    "Makeup_Obfuscation": ("mask.makeup_obfuscation", "Makeup_Ob"),
    "Mannequin": ("mannequin", "Mask_Mann"),
    "Silicone": ("mask.silicone", "Mask_Silicone"),
    "Print": ("print", "Paper"),
    "Replay": ("replay", "Replay"),
    "Partial_FunnyeyeGlasses": ("mask.partial_funny_glasses", "Partial_Funnyeye"),
    "Partial_PaperGlasses": ("mask.partial_paper_glasses", "Partial_Paperglass"),
    "Partial_Eye": ("mask.partial_eye", "Partial_Eye"),
    "Partial_Mouth": ("mask.partial_mouth", "Partial_Mouth"),
    "Mask_HalfMask": ("mask.half", "Mask_Half"),
    "Mask_PaperMask": ("mask.paper", "Mask_Paper"),
    "Mask_TransparentMask": ("mask.transparent", "Mask_Trans"),
}
_SPECIES = {word.lower(): species for folder, (species, prefix) in TYPES.items() for word in (folder, prefix)}
_PATH = re.compile(r"(?:.*/)?(?:Live|Spoof/([^/]+))/([A-Za-z_]+?)_?(\d+)\.(\w+)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class SiwMV2:
    """Reader of the distributed layout."""

    def scan(self, root: Path) -> Scan:
        """All videos below `root`. Raises DataError where the layout is another one."""

        def parse(source: str) -> Parsed:
            match = _PATH.fullmatch(source)
            if not match or PurePosixPath(source).suffix.lower() not in VIDEO_SUFFIXES:
                return None
            folder, prefix, number, _ = match.groups()
            species = _SPECIES.get(folder.lower()) if folder else "live"
            if species is None:
                return None
            named = "live" if prefix.lower() == "live" else _SPECIES.get(prefix.lower())
            if named != species:
                return Refusal(source, f"lies in {folder or 'Live'}/ ({species}) but its name says {prefix}")
            subject = f"{species}-{int(number)}"
            return RawSample(
                path=os.path.join(root, source),
                source=source,
                domain=LAYOUT.name,
                subject_id=subject,
                # Print_12 and Paper_12 of one folder are two videos.
                media_id=source.rpartition(".")[0],
                split=split_of(subject),
                pai_species=species,
                container="video",
            )

        return scan_tree(root, LAYOUT, parse)
