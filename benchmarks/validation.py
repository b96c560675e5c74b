"""`python -m benchmarks.validation [ROWS]`: all rules on a captioned manifest, 1,000,000 rows by default.

Each size runs in a process of its own, so that its peak memory is its own. Importing Great Expectations is not counted;
reading the manifest from Parquet is.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figure import figure


def generate(path: Path, count: int) -> None:
    """A manifest like that of a large dataset: half a million captions that differ, distinct hashes, three domains."""
    import numpy as np
    import pandas as pd

    from ifas.captioning.table import write_table

    rng = np.random.default_rng(0)
    species = np.array(["live", "print.a4", "print.photo", "replay.phone", "replay.pc", "mask.rigid3d"])
    which = rng.integers(0, len(species), count)
    kinds = np.array([s.split(".")[0] for s in species])[which]
    subject = rng.integers(0, 10_177, count)
    text = {
        "live": "A face before a white wall, a red top, bright light",
        "print": "A face before a wall. It looks like a photo printed on paper",
        "replay": "A face before a wall. It looks like a photo of a screen",
        "mask": "A face before a wall. The face shines and it looks like a mask",
    }
    numbers = rng.integers(0, max(1, count // 2), count)
    boxes = rng.uniform(10, 60, (count, 4)).astype(np.float32)
    ids = rng.integers(0, 256, (count, 32), dtype=np.uint8)
    frame = pd.DataFrame(
        {
            "sample_id": [row.tobytes().hex() for row in ids],
            "dataset": "bench",
            "domain": np.array(["a", "b", "c"])[rng.integers(0, 3, count)],
            "subject_id": subject.astype(str),
            "media_id": np.char.add(subject.astype(str), np.char.add("/", np.arange(count).astype(str))),
            "track_id": None,
            "frame_index": None,
            "split": np.array(["train", "train", "train", "dev", "test"])[subject % 5],
            "label": np.where(kinds == "live", "live", "spoof"),
            "spoof_type": kinds,
            "pai_species": species[which],
            "device": None,
            "environment": "indoor",
            "illumination": "normal",
            "face_box": list(boxes),
            "width": np.int32(224),
            "height": np.int32(224),
            "shard": np.char.add("shard-", (np.arange(count) // 3000).astype(str)),
            "row": (np.arange(count) % 3000).astype(np.int32),
            "phash": [rng.bytes(72).hex() for _ in range(count)],
            "licence": "terms",
            "source": "x",
            "synthetic": False,
            "attack": None,
            "quality": None,
            "batch": None,
            "status": "released",
            "caption": [f"{text[k]}, {n}." for k, n in zip(kinds, numbers, strict=True)],
            "caption_source": np.where(kinds == "live", "general", "spoof-aware"),
            "caption_general": "A face.",
            "caption_tuned": None,
            "caption_kept": kinds != "live",
            "evidence": "{}",
            "clauses": "[]",
            "label_audit": None,
            "face_refused": None,
        }
    )
    write_table(frame, path)


def measured(path: Path) -> dict[str, float]:
    """Seconds to read and check, seconds to import, peak bytes."""
    began = time.perf_counter()
    import great_expectations
    import pandas as pd
    import scipy.stats
    import sklearn.linear_model

    from ifas.core.config import ValidateConfig
    from ifas.validation.suite import validate

    assert all((great_expectations, scipy.stats, sklearn.linear_model))
    imported = time.perf_counter()
    manifest = pd.read_parquet(path)
    report = validate(manifest, ValidateConfig(), out=path.parent / "out", source_domains=("a", "b"))
    done = time.perf_counter()
    if not report.passed:
        raise SystemExit(f"the generated manifest breaks rules: {report.blocking_failures}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"import": imported - began, "seconds": done - imported, "peak": peak}


def main() -> int:
    """Prints the figures; 1 where a bar is missed."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measured(Path(sys.argv[2]))))
        return 0
    if sys.argv[1:2] == ["--generate"]:
        generate(Path(sys.argv[2]), int(sys.argv[3]))
        return 0
    count = int(sys.argv[1]) if sys.argv[1:] else 1_000_000
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "manifest.parquet"
        this = [sys.executable, "-m", "benchmarks.validation"]
        subprocess.run([*this, "--generate", str(path), str(count)], check=True)
        done = subprocess.run([*this, "--measure", str(path)], check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        ok = figure(f"validation of {count} rows", found["seconds"], "s", bar=20)
        ok &= figure("peak memory", found["peak"] / 1e9, "GB", bar=3)
        figure("importing Great Expectations", found["import"], "s")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
