"""`python -m benchmarks.ingest [COUNT]`: packing and DVC at size, on generated JPEG files; 20,000 by default.

Baselines, in the same run: a loop that reads every file and hashes it, by as many threads as packing has, and by one;
DVC on the loose files, with the same commands in one process, to a real S3 server (SeaweedFS) and to a folder. Packing
is measured at two sizes: CelebA-Spoof's images have 118 KB on average. Each measurement runs in a process of its own,
so that its peak memory is its own; that of packing is its processes' together.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.figure import figure
from tests.servers import s3_server

WORKERS = 2
REPEATS = 3
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


def generate_large(root: Path, count: int) -> None:
    """As `generate`, 640 x 640 pixels and about 118 KB: 100 images, each file with a comment segment of its own."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(1)
    pictures = []
    for _ in range(100):
        small = rng.integers(0, 195, (7, 7, 3), dtype=np.uint8)
        blobs = np.asarray(Image.fromarray(small).resize((640, 640), Image.Resampling.BICUBIC))
        noise = rng.integers(0, 60, (640, 640, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(blobs + noise).save(out, "JPEG", quality=80)
        pictures.append(out.getvalue())
    for n in range(count):
        data, comment = pictures[n % 100], str(n).encode()
        folder = root / "bench" / ("live", "print.a4", "replay.phone")[n % 3] / f"s{n % 249:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        segment = b"\xff\xfe" + (2 + len(comment)).to_bytes(2, "big") + comment
        (folder / f"{n:06d}.jpg").write_bytes(data[:2] + segment + data[2:])


def read_and_hash(root: Path, threads: str) -> dict[str, float]:
    """The bare loop; the list of files is there before it begins."""
    import hashlib
    from concurrent.futures import ThreadPoolExecutor

    def one(file: Path) -> str:
        return hashlib.sha256(file.read_bytes()).hexdigest()

    files = [Path(folder) / name for folder, _, names in os.walk(root) for name in names]
    began, worked = time.perf_counter(), time.process_time()
    if threads == "1":
        digests = [one(file) for file in files]
    else:
        with ThreadPoolExecutor(int(threads)) as pool:
            digests = list(pool.map(one, files, chunksize=64))
    return {
        "images": len(digests),
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - worked,
    }


def warmed(root: Path, out: Path) -> dict[str, float]:
    """Writes as many bytes as `root` holds and removes them: a virtual machine's memory costs more the first time."""
    with out.open("wb") as file:
        for source in root.rglob("*.jpg"):
            file.write(source.read_bytes())
    out.unlink()
    return {}


def packed(root: Path, out: Path) -> dict[str, float]:
    """`pack`, imports excluded; the scan included."""
    import pandas as pd
    import pyarrow.parquet
    import scipy.stats
    from PIL import Image

    from ifas.data.pack import pack

    assert all((Image, pd, pyarrow.parquet, scipy.stats))
    began = time.perf_counter()
    report = pack("folder", root, out, name="bench", licence="CC0-1.0", workers=WORKERS)
    seconds = time.perf_counter() - began
    for process in multiprocessing.active_children():
        process.join()  # then their memory counts
    return {
        "images": report.rows,
        "seconds": seconds,
        "shards": report.shards,
        "bytes": report.bytes,
    }


def scanned(count: str) -> dict[str, float]:
    """What packing holds of a dataset while it runs, images apart: samples, and the hashes of images seen."""
    import hashlib

    from ifas.data.pack.duplicates import SeenImages
    from ifas.data.readers import RawSample

    samples = []
    seen = SeenImages()
    root = "/data/CelebA_Spoof"
    for n in range(int(count)):
        source = f"Data/train/{n // 60}/live/{n:06d}.png"
        samples.append(
            RawSample(
                path=f"{root}/{source}",
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
        seen.take(hashlib.sha256(source.encode()).hexdigest(), source, "live")
    return {"images": len(samples), "seconds": 0.0}


def dvc(folder: Path, scratch: Path, remote: str, endpoint: str) -> dict[str, float]:
    """`dvc add` and `dvc push` of a folder, in one process, as the registry publishes."""
    from ifas.data.dvc_repo import dvc as run
    from ifas.data.dvc_repo import git

    repo = scratch / "repo"
    shutil.rmtree(repo, ignore_errors=True)
    repo.mkdir(parents=True)
    git(repo, "init", "-q")
    settings = [
        ("init", "-q"),
        ("remote", "add", "-d", "r", str(remote)),
        ("config", "cache.type", "reflink,hardlink,copy"),
    ]
    run(repo, *settings, *([("remote", "modify", "r", "endpointurl", endpoint)] if endpoint else []))
    shutil.copytree(folder, repo / "data", copy_function=os.link)
    began = time.perf_counter()
    run(repo, ("add", "-q", "data"), ("push", "-q"))
    files = sum(1 for p in (repo / "data").rglob("*") if p.is_file())
    return {"seconds": time.perf_counter() - began, "files": files}


def dvc_seconds(here: Path, kind: str) -> tuple[float, float]:
    """Seconds of add and push to one kind of remote, packed and loose; each to a remote of its own."""
    found = []
    for name in ("packed", "raw"):
        scratch = here / f"dvc-{kind}-{name}"
        scratch.mkdir()
        if kind == "s3":
            with s3_server(scratch / "server") as server:
                os.environ.update(server.env)
                found.append(alone("dvc", here / name, scratch, f"s3://{server.bucket}/data", server.url)["seconds"])
        else:
            (scratch / "remote").mkdir()
            found.append(alone("dvc", here / name, scratch, scratch / "remote", "")["seconds"])
    return found[0], found[1]


PARTS = {"warm": warmed, "hash": read_and_hash, "pack": packed, "scan": scanned, "dvc": dvc}


def alone(part: str, *arguments: object) -> dict[str, float]:
    """A part in a process of its own; `peak` is its peak memory in bytes."""
    command = [sys.executable, "-m", "benchmarks.ingest", "--part", part, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def throughput(here: Path, name: str, bar: float | None) -> tuple[bool, dict[str, float]]:
    """Packs `name` and prints its images per second against the bare loop, by as many threads and by one.

    Three repetitions, the two sides in turn; a ratio is the median of theirs. The bar is for the quicker loop.
    """
    alone("hash", here / name, 1)  # once for the file cache, so that both sides read from memory
    alone("warm", here / name, here / "warm")
    out = here / f"packed-{name}"
    rates: dict[int, list[float]] = {0: [], 1: [], WORKERS: []}
    for _ in range(REPEATS):
        shutil.rmtree(out, ignore_errors=True)
        for threads in (1, WORKERS):
            loop = alone("hash", here / name, threads)
            rates[threads].append(loop["images"] / loop["seconds"])
        packing = alone("pack", here / name, out)
        rates[0].append(packing["images"] / packing["seconds"])
    what = f"pack, {packing['images']} images of {packing['bytes'] / packing['images'] / 1e3:.0f} KB, against the loop"
    best = max((1, WORKERS), key=lambda threads: median(rates[threads]))
    ok = True
    for threads in (1, WORKERS):
        ratio = median(a / b for a, b in zip(rates[0], rates[threads], strict=True))
        value = median(rates[0])
        mine = bar if threads == best else None
        called = f"{what} by {threads} thread(s){', the quicker one' if threads == best else ''}"
        ok &= figure(called, value, "images/s", baseline=value / ratio, bar=mine, bar_is="ratio >=")
    return ok, packing


def main() -> int:
    """Prints the figures; 1 where a bar is missed."""
    if sys.argv[1:2] == ["--part"]:
        part, *arguments = sys.argv[2:]
        found = PARTS[part](*(Path(a) if a.startswith("/") else a for a in arguments))  # type: ignore[operator]
        peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        found["peak"] = (peaks[0] + WORKERS * peaks[1]) * 1024
        print(json.dumps(found))
        return 0
    count = int(sys.argv[1]) if sys.argv[1:] else 20_000
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        generate(here / "few", count // 4)
        generate(here / "raw", count)
        generate_large(here / "large", count)
        ok, large = throughput(here, "large", 0.5)
        fine, packing = throughput(here, "raw", None)
        ok &= fine
        packing["peak"] = max(packing["peak"], large["peak"])
        (here / "packed-raw").rename(here / "packed")
        few = alone("pack", here / "few", here / "packed-few")
        ok &= figure("pack, peak memory", packing["peak"] / 1e9, "GB", baseline=few["peak"] / 1e9, bar=1.5)
        scan = alone("scan", CELEBA_SPOOF)
        ok &= figure(f"samples and hashes of {CELEBA_SPOOF} images, peak memory", scan["peak"] / 1e9, "GB", bar=1.5)
        for kind, bar in (("s3", 8.0), ("folder", None)):
            shards, loose = dvc_seconds(here, kind)
            called = f"DVC add + push to {kind}, packed against loose"
            ok &= figure(called, 1 / shards, "1/s", baseline=1 / loose, bar=bar, bar_is="ratio >=")
            figure(f"DVC add + push to {kind}, packed; loose", shards, "s", baseline=loose)
        files = CELEBA_SPOOF_BYTES / (256 * 2**20) + 2 + 1
        ok &= figure("files that DVC tracks for CelebA-Spoof (computed)", round(files), "files", bar=500)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
