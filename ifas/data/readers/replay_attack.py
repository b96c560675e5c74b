"""Replay-Attack (Chingovska et al., BIOSIG 2012, Idiap): 50 clients, 1,200 videos.

    <split>/real/client###_session##_webcam_authenticate_<controlled|adverse>_<1|2>.mov
    <split>/attack/<fixed|hand>/attack_<print|mobile|highdef>_client###_session##_<device>_<photo|video>_<light>.mov

`enroll` holds videos for face recognition, which are no test of liveness: a known side folder.
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
    name="replay-attack",
    expected="<train|devel|test>/real/client###_session##_webcam_authenticate_<controlled|adverse>_<1|2>.mov and "
    "<train|devel|test>/attack/<fixed|hand>/attack_<print|mobile|highdef>_client###_session##_<device>_<photo|video>_"
    "<controlled|adverse>.mov",
    licence="Replay-Attack: Idiap end-user licence agreement, research only, no redistribution",
    description="Replay-Attack, its own three splits",
    side_files=r"(.*/)?enroll/.*|.*\.(txt|face|pdf|sql3|xml)|(.*/)?face-locations/.*|(.*/)?protocols/.*",
)
SPLITS: dict[str, Split] = {"train": "train", "devel": "dev", "test": "test"}
#: The high-definition attacks were shown on a first-generation tablet, the mobile ones on a phone.
SPECIES = {"print": "print", "mobile": "replay.phone", "highdef": "replay.tablet"}
_SPLIT = r"(?:.*/)?(train|devel|test)"
_REAL = re.compile(_SPLIT + r"/real/(client\d{3})_session(\d\d)_webcam_authenticate_(controlled|adverse)_(\d)\.mov")
_ATTACK = re.compile(
    _SPLIT + r"/attack/(fixed|hand)/attack_(print|mobile|highdef)_(client\d{3})_session(\d\d)_([a-z]+)_(photo|video)_"
    r"(controlled|adverse)\.mov"
)


@dataclass(frozen=True)
class ReplayAttack:
    """Reader of the distributed layout."""

    def scan(self, root: Path) -> Scan:
        """All videos below `root`. Raises DataError where the layout is another one."""

        def parse(source: str) -> Parsed:
            if match := _REAL.fullmatch(source):
                split, client, _, light, _ = match.groups()
                species, attack = "live", None
            elif match := _ATTACK.fullmatch(source):
                split, support, kind, client, _, device, content, light = match.groups()
                species, attack = SPECIES[kind], {"support": support, "device": device, "content": content}
            else:
                return None
            return RawSample(
                path=os.path.join(root, source),
                source=source,
                domain=LAYOUT.name,
                subject_id=client,
                media_id=source.rpartition(".")[0],
                split=SPLITS[split],
                pai_species=species,
                device="webcam",
                environment="indoor",
                illumination="normal" if light == "controlled" else "adverse",
                attack=attack,
                container="video",
            )

        return scan_tree(root, LAYOUT, parse)
