"""Clips of a rendered face that moves along a known path: where the face is in each frame is known exactly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

WIDTH, HEIGHT = 640, 480


@dataclass(frozen=True)
class Clip:
    """Frames, uint8 RGB (HEIGHT, WIDTH, 3), and for each the 2x3 matrix that placed the portrait in it."""

    frames: list[np.ndarray]
    placed: list[np.ndarray]

    def boxes(self, box: tuple[float, float, float, float]) -> list[tuple[float, float, float, float]]:
        """Where a box of the portrait is in each frame, as the upright box around it."""
        x, y, w, h = box
        corners = np.array([[x, y, 1], [x + w, y, 1], [x, y + h, 1], [x + w, y + h, 1]]).T
        found = []
        for matrix in self.placed:
            xs, ys = matrix @ corners
            found.append((float(xs.min()), float(ys.min()), float(np.ptp(xs)), float(np.ptp(ys))))
        return found


def portraits(folder: Path, count: int = 3) -> list[tuple[np.ndarray, tuple[float, float, float, float]]]:
    """Rendered bona fide images and their face boxes."""
    from ifas.simulator import make_demo

    make_demo(folder, seed=11, subjects=6, workers=2, limit=4 * count)
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    live = [row for row in rows if row["label"] == "live"][:count]
    return [(cv2.imread(str(folder / row["path"]))[..., ::-1].copy(), tuple(row["face_box"])) for row in live]


def make_clip(portrait: np.ndarray, seed: int, frames: int = 60, speed: float = 1.0) -> Clip:
    """The portrait wanders, turns and breathes over a still background, under changing light and noise."""
    rng = np.random.default_rng(seed)
    blobs = rng.integers(30, 200, (12, 16, 3), dtype=np.uint8)
    background = cv2.resize(blobs, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    side = portrait.shape[0]
    phase = rng.uniform(0, 2 * np.pi, 4)
    made, placed = [], []
    for t in range(frames):
        a = 2 * np.pi * speed * t / 60
        scale = (0.85 + 0.12 * np.sin(a + phase[0])) * 360 / side
        angle = 5 * np.sin(1.3 * a + phase[1])
        centre = (WIDTH / 2 + 90 * np.sin(a + phase[2]), HEIGHT / 2 + 40 * np.sin(1.7 * a + phase[3]))
        matrix = cv2.getRotationMatrix2D((side / 2, side / 2), angle, scale)
        matrix[:, 2] += np.array(centre) - side / 2
        frame = background.copy()
        warped = cv2.warpAffine(portrait, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_AREA)
        mask = cv2.warpAffine(np.full(portrait.shape[:2], 255, np.uint8), matrix, (WIDTH, HEIGHT)) > 127
        frame[mask] = warped[mask]
        noisy = frame * (1 + 0.15 * np.sin(0.7 * a)) + rng.normal(0, 3, frame.shape)
        made.append(np.clip(noisy, 0, 255).astype(np.uint8))
        placed.append(matrix)
    return Clip(made, placed)


def write_video(path: Path, frames: list[np.ndarray], codec: str = "mpeg4", rate: int = 25) -> Path:
    """Encodes frames; the container follows from the file's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.bit_rate = 4_000_000
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
