"""A checked batch becomes shards and rows behind those that its dataset has."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.files import sha256_file, write_json
from ifas.core.manifest import DATASET_FILE, MANIFEST_FILE, SAMPLES_FILE, SHARDS_DIR
from ifas.data.dataset import class_counts, read_index
from ifas.data.pack import PackReport, pack
from ifas.data.tables import manifest_schema, shard_name, write_manifest

if TYPE_CHECKING:
    import pandas as pd

    from ifas.data.readers import RawSample


def packed(samples: Sequence[RawSample], here: Path, licence: str) -> tuple[PackReport, dict[str, str]]:
    """The batch as a dataset folder below `here`, and the source of each file that was packed.

    Links stand in for the delivered files.
    """
    staged = here / "staged"
    called = {}
    lines = []
    for number, sample in enumerate(samples):
        link = staged / f"{number:06d}{Path(sample.path).suffix.lower()}"
        link.parent.mkdir(exist_ok=True)
        os.symlink(Path(sample.path).resolve(), link)
        called[link.name] = sample.source
        lines.append(
            {
                "path": link.name,
                "domain": sample.domain,
                "subject_id": sample.subject_id,
                "media_id": sample.media_id,
                "split": sample.split,
                "pai_species": sample.pai_species,
                "device": sample.device,
                "environment": sample.environment,
                "illumination": sample.illumination,
                "face_box": list(sample.face_box) if sample.face_box else None,
                "licence": licence,
                "synthetic": sample.synthetic,
                "attack": sample.attack,
            }
        )
    (staged / SAMPLES_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return pack("folder", staged, here / "batch", name="batch", licence=licence), called


def append(base: Path, index: dict[str, Any], manifest: pd.DataFrame, batch: Path, fresh: pd.DataFrame) -> None:
    """Puts shards and rows of a batch behind those of the dataset at `base`, whose shards stay as they are."""
    import pandas as pd

    shards = read_index(batch)["shards"]
    renamed = {}
    for number, shard in enumerate(sorted(shards), start=len(index["shards"])):
        renamed[shard] = shard_name(number)
        os.rename(batch / SHARDS_DIR / shard, base / SHARDS_DIR / renamed[shard])
        index["shards"][renamed[shard]] = shards[shard]
    fresh = fresh.assign(shard=fresh["shard"].map(renamed))
    write(base, index, pd.concat([manifest, fresh], ignore_index=True))


def write(base: Path, index: dict[str, Any], manifest: pd.DataFrame) -> None:
    """Writes the manifest, and the index with what it says of the manifest brought up to date."""
    import pyarrow as pa

    schema = manifest_schema()
    tables = (
        pa.Table.from_pandas(rows, schema=schema, preserve_index=False).replace_schema_metadata(None)
        for _, rows in manifest.groupby("shard", sort=False)
    )
    write_manifest(base / MANIFEST_FILE, tables)
    classes = Counter(zip(*(manifest[c] for c in ("domain", "split", "spoof_type")), strict=True))
    index |= {
        "rows": len(manifest),
        "subjects": int(manifest["subject_id"].nunique()),
        "counts": class_counts(classes),
        "licences": dict(sorted(Counter(manifest["licence"]).items())),
        "synthetic": bool(manifest["synthetic"].all()),
        "manifest_sha256": sha256_file(base / MANIFEST_FILE),
    }
    write_json(base / DATASET_FILE, index)
