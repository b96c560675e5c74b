"""A valid captioned manifest, without images: two domains, live, print and replay in every split."""

import hashlib
import json

import numpy as np
import pandas as pd

from ifas.core.manifest import CAPTION_COLUMNS, COLUMNS, INSPECTION_COLUMNS

SPECIES = {"live": "live", "print": "print.a4", "replay": "replay.phone"}
CAPTIONS = {
    "live": "A real person looks into the camera; skin with natural sheen.",
    "print": "A print attack: the face is on flat paper with straight borders.",
    "replay": "A replay attack: a fine grid betrays the screen of a phone.",
}
SPLITS = {"train": 3, "dev": 2, "test": 2}


def manifest(seed: int = 0) -> pd.DataFrame:
    """42 rows; every rule holds."""
    rng = np.random.default_rng(seed)
    rows = []
    for split, people in SPLITS.items():
        for number in range(people):
            for domain in ("office", "street"):
                for kind, species in SPECIES.items():
                    n = len(rows)
                    rows.append(
                        {
                            "sample_id": hashlib.sha256(f"{seed}/{n}".encode()).hexdigest(),
                            "dataset": "toy",
                            "domain": domain,
                            "subject_id": f"{split}{number}",
                            "media_id": f"{split}{number}-{domain}-{kind}",
                            "track_id": None,
                            "frame_index": n if n % 3 else None,
                            "split": split,
                            "label": "live" if kind == "live" else "spoof",
                            "spoof_type": kind,
                            "pai_species": species,
                            "device": "camera",
                            "environment": "indoor",
                            "illumination": None,
                            "face_box": np.array([10, 12, 40, 50], dtype=np.float32) if n % 5 else None,
                            "width": 64,
                            "height": 80,
                            "shard": "shard-00000.parquet",
                            "row": n,
                            "phash": rng.bytes(72).hex(),
                            "licence": "CC0-1.0",
                            "source": f"{n}.png",
                            "synthetic": False,
                            "attack": None if kind == "live" else json.dumps({"kind": kind}),
                            "quality": None,
                            "batch": None,
                            "status": "released",
                            "caption": CAPTIONS[kind],
                            "caption_source": "general" if kind == "live" else "spoof-aware",
                            "caption_general": CAPTIONS[kind],
                            "caption_tuned": None if kind == "live" else "A face.",
                            "caption_kept": kind != "live",
                            "evidence": "{}",
                            "clauses": "[]",
                            "label_audit": None,
                            "face_refused": None,
                        }
                    )
    frame = pd.DataFrame(rows)[[column.name for column in COLUMNS + CAPTION_COLUMNS + INSPECTION_COLUMNS]]
    return frame.astype({"width": "int32", "height": "int32", "row": "int32"})
