"""Tiny images for the tests of the data room."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 64, height: int = 48, kind: str = "JPEG") -> bytes:
    """An encoded picture of smooth blobs; every seed gives another one."""
    rng = np.random.default_rng(seed)
    blobs = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    out = io.BytesIO()
    blobs.resize((width, height), Image.Resampling.BICUBIC).save(out, kind)
    return out.getvalue()


def put(path: Path, data: bytes) -> Path:
    """Writes a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def bomb(side: int = 14000) -> bytes:
    """A one-bit PNG: some 24 KiB that decode to side x side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + (side + 7) // 8) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def folder_dataset(root: Path, seed: int = 0, subjects: int = 3, domains: tuple[str, ...] = ("desk", "door")) -> Path:
    """A small dataset in the folder layout without samples.jsonl: two images per subject, type and domain."""
    for d, domain in enumerate(domains):
        for t, species in enumerate(("live", "print.a4", "replay")):
            for s in range(subjects):
                for n in range(2):
                    data = picture(seed * 10_000 + d * 1000 + t * 100 + s * 10 + n)
                    put(root / domain / species / f"s{s}" / f"{n}.jpg", data)
    return root
