"""`python -m benchmarks.tracking`: tracked faces against boxes that are known, and how often the detector ran.

The true box of a frame is the detector's box on the still portrait, moved as the portrait was moved: the bias of the
detector against another definition of a face box is no error of the tracking. Success AUC is the mean over thresholds
from 0 to 1 of the share of frames whose overlap with the truth is above the threshold.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.clips import make_clip, portraits
from benchmarks.figure import figure
from ifas.data.video.tracker import TRACKERS, FaceTracker
from ifas.faces.boxes import iou, smoothed
from ifas.faces.detector import Mtcnn

EVERY = 10


def success_auc(overlaps: list[float]) -> float:
    """Area under the success curve."""
    return float(np.mean([[o > t for o in overlaps] for t in np.linspace(0, 1, 101)]))


def followed(clip, tracker: str, every: int):
    """Smoothed boxes by frame, the tracker's counters, and seconds."""
    follower = FaceTracker(Mtcnn(), tracker, every)
    began = time.perf_counter()
    seen = {n: one.box for n, frame in enumerate(clip.frames) if (one := follower.step(frame))}
    spent = time.perf_counter() - began
    return dict(zip(seen, smoothed(list(seen.values())), strict=True)), follower, spent


def main() -> int:
    """Prints the figures; 1 where a bar is missed."""
    ok = True
    with tempfile.TemporaryDirectory() as scratch:
        faces = portraits(Path(scratch) / "faces")
    clips = [(make_clip(p, seed, 90), p) for seed, (p, _) in enumerate(faces)]
    truth = [clip.boxes(Mtcnn().detect(portrait)[0].box) for clip, portrait in clips]

    def measured(tracker: str, every: int) -> tuple[float, int, float]:
        overlaps, calls, seconds = [], 0, 0.0
        for (clip, _), boxes in zip(clips, truth, strict=True):
            found, follower, spent = followed(clip, tracker, every)
            overlaps += [iou(found[n], boxes[n]) if n in found else 0.0 for n in range(len(boxes))]
            calls, seconds = calls + follower.calls, seconds + spent
        return success_auc(overlaps), calls, seconds

    base, base_calls, base_seconds = measured("medianflow", 1)
    for tracker in TRACKERS:
        auc, calls, seconds = measured(tracker, EVERY)
        main_one = tracker == "medianflow"
        ok &= figure(
            f"success AUC, {tracker}", auc, "", baseline=base, bar=0.75 if main_one else None, bar_is="value >="
        )
        ok &= figure(
            f"detector calls, {tracker}",
            calls,
            "calls",
            baseline=base_calls,
            bar=0.2 if main_one else None,
            bar_is="ratio <=",
        )
        figure(f"time, {tracker}", seconds, "s", baseline=base_seconds)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
