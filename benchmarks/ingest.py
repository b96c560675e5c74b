"""`python -m benchmarks.ingest [COUNT]`: packing and DVC at size, on generated JPEG files; 20,000 by default.

Baselines, in the same run: a loop that reads every file and hashes it, by as many threads as packing has; DVC on the
loose files. Each measurement runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figure import figure

WORKERS = 2
#: CelebA-Spoof: images, and shards of 256 MiB that its 74 GB need at the mean size of its images.
CELEBA_SPOOF, CELEBA_SPOOF_BYTES = 625_537, 74e9


def generate(root: Path, count: int) -> None:
    """JPEG files of 224 x 224 pixels and about 11 KB in the folder layout; every file differs."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    texture = rng.integers(0, 60, (512, 512, 3), dtype=np.uint8)
    for n in range(count):
        x, y = int(rng.integers(0, 288)), int(rng.integers(0, 288))
        small = rng.integers(0, 195, (5, 5, 3), dtype=np.uint8)
        blobs = np.asarray(Image.fromarray(small).resize((224, 224), Image.Resampling.BICUBIC))
        out = io.BytesIO()
        Image.fromarray(blobs + texture[y : y + 224, x : x + 224]).save(out, "JPEG", quality=75)
        folder = root / "bench" / ("live", "print.a4", "replay.phone")[n % 3] / f"s{n % 997:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{n:06d}.jpg").write_bytes(out.getvalue())


def read_and_hash(root: Path) -> dict[str, float]:
    """The bare loop."""
    import hashlib
    from concurrent.futures import ThreadPoolExecutor

    files = [Path(folder) / name for folder, _, names in os.walk(root) for name in names]
    began = time.perf_counter()
    with ThreadPoolExecutor(WORKERS) as pool:
        digests = list(pool.map(lambda f: hashlib.sha256(f.read_bytes()).hexdigest(), files, chunksize=64))
    return {"images": len(digests), "seconds": time.perf_counter() - began}


def read_hash_decode(root: Path) -> dict[str, float]:
    """The bare loop that also decodes, as it must to refuse a damaged image, and makes the perceptual hash."""
    import hashlib
    from concurrent.futures import ThreadPoolExecutor

    import cv2
    import scipy.fft

    from ifas.core.imaging import glance
    from ifas.core.phash import phash

    assert all((cv2, scipy.fft))

    def one(file: Path) -> tuple[str, str]:
        data = file.read_bytes()
        return hashlib.sha256(data).hexdigest(), phash(glance(data)[0])

    files = [Path(folder) / name for folder, _, names in os.walk(root) for name in names]
    began = time.perf_counter()
    with ThreadPoolExecutor(WORKERS) as pool:
        digests = list(pool.map(one, files, chunksize=64))
    return {"images": len(digests), "seconds": time.perf_counter() - began}


def packed(root: Path, out: Path) -> dict[str, float]:
    """`pack`, imports excluded; the scan included."""
    import cv2
    import pyarrow.parquet
    import scipy.fft
    import scipy.stats

    from ifas.data.pack import pack

    assert all((cv2, pyarrow.parquet, scipy.fft, scipy.stats))
    began = time.perf_counter()
    report = pack("folder", root, out, name="bench", licence="CC0-1.0", workers=WORKERS)
    return {
        "images": report.rows,
        "seconds": time.perf_counter() - began,
        "shards": report.shards,
        "bytes": report.bytes,
    }


def scanned(count: str) -> dict[str, float]:
    """What packing holds of a dataset while it runs, images apart: samples, and the ledger of bytes seen."""
    import hashlib

    from ifas.data.pack import _Ledger
    from ifas.data.readers import RawSample

    samples = []
    ledger = _Ledger("bench", "x")
    root = Path("/data/CelebA_Spoof")
    for n in range(int(count)):
        source = f"Data/train/{n // 60}/live/{n:06d}.png"
        samples.append(
            RawSample(
                path=root / source,
                source=source,
                domain="celeba-spoof",
                subject_id=str(n // 60),
                media_id=f"{n // 60}/live/{n:06d}",
                split="train",
                pai_species="live",
                face_box=(float(n % 200), 1.0, 100.0, 100.0),
                box_frame=(224, 224),
                licence="terms",
            )
        )
        ledger.take({"sample_id": hashlib.sha256(source.encode()).hexdigest(), "source": source, "pai_species": "live"})
    return {"images": len(samples), "seconds": 0.0}


def dvc(folder: Path, scratch: Path) -> dict[str, float]:
    """`dvc add` and `dvc push` of a folder to a local remote."""
    repo, remote = scratch / "repo", scratch / "remote"
    for path in (repo, remote):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    env = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    command = Path(sys.executable).with_name("dvc")

    def run(*args: object) -> None:
        subprocess.run([str(a) for a in args], cwd=repo, env=env, check=True, capture_output=True)

    run("git", "init", "-q")
    run(command, "init", "-q")
    run(command, "remote", "add", "-d", "r", remote)
    run(command, "config", "cache.type", "reflink,hardlink,copy")
    shutil.copytree(folder, repo / "data", copy_function=os.link)
    began = time.perf_counter()
    run(command, "add", "-q", "data")
    added = time.perf_counter() - began
    run(command, "push", "-q")
    files = sum(1 for p in (repo / "data").rglob("*") if p.is_file())
    return {"seconds": time.perf_counter() - began, "add": added, "files": files}


PARTS = {"hash": read_and_hash, "decode": read_hash_decode, "pack": packed, "scan": scanned, "dvc": dvc}


def alone(part: str, *arguments: object) -> dict[str, float]:
    """A part in a process of its own; `peak` is its peak memory in bytes."""
    command = [sys.executable, "-m", "benchmarks.ingest", "--part", part, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Prints the figures; 1 where a bar is missed."""
    if sys.argv[1:2] == ["--part"]:
        part, *arguments = sys.argv[2:]
        paths = [a if part == "scan" else Path(a) for a in arguments]
        found = PARTS[part](*paths)  # type: ignore[operator]
        found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(found))
        return 0
    count = int(sys.argv[1]) if sys.argv[1:] else 20_000
    ok = True
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        generate(here / "few", count // 4)
        generate(here / "raw", count)
        alone("hash", here / "raw")  # once for the file cache, so that both sides read from memory
        bare, packing = alone("hash", here / "raw"), alone("pack", here / "raw", here / "packed")
        few = alone("pack", here / "few", here / "packed-few")
        rates = [part["images"] / part["seconds"] for part in (packing, bare)]
        ok &= figure("pack, images per second", rates[0], "images/s", baseline=rates[1], bar=0.5, bar_is="ratio >=")
        decode = alone("decode", here / "raw")
        figure(
            "pack against reading, hashing and decoding",
            rates[0],
            "images/s",
            baseline=decode["images"] / decode["seconds"],
        )
        ok &= figure("pack, peak memory", packing["peak"] / 1e9, "GB", baseline=few["peak"] / 1e9, bar=1.5)
        scan = alone("scan", CELEBA_SPOOF)
        ok &= figure(f"samples and ledger of {CELEBA_SPOOF} images, peak memory", scan["peak"] / 1e9, "GB", bar=1.5)
        loose, shards = alone("dvc", here / "raw", here / "dvc-a"), alone("dvc", here / "packed", here / "dvc-b")
        speed = [1 / part["seconds"] for part in (shards, loose)]
        ok &= figure(
            "DVC add + push, packed against loose", speed[0], "1/s", baseline=speed[1], bar=8, bar_is="ratio >="
        )
        figure("DVC add + push, packed", shards["seconds"], "s", baseline=loose["seconds"])
        files = CELEBA_SPOOF_BYTES / (256 * 2**20) + 2 + 1
        ok &= figure("files that DVC tracks for CelebA-Spoof (computed)", round(files), "files", bar=500)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
