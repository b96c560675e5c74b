"""A video becomes images: one pass follows the face, a second encodes the chosen frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ifas.core.imaging import ImageLimits
from ifas.data.readers import RawSample, Refusal
from ifas.data.still import Still
from ifas.data.video.decode import hdf5_frames, video_frames
from ifas.data.video.filters import judge, measured, motion
from ifas.data.video.plan import FramePlan
from ifas.data.video.tracker import FaceTracker, Seen
from ifas.faces.boxes import Box, smoothed
from ifas.faces.detector import detector

if TYPE_CHECKING:
    from ifas.data.video.display import Frame

READ = {"video": video_frames, "hdf5": hdf5_frames}
JPEG_QUALITY = 95


def frames_of(
    sample: RawSample, limits: ImageLimits, plan: FramePlan, detect: str = "mtcnn"
) -> Iterator[Still | Refusal]:
    """The frames that `plan` takes of a video, each with its track, smoothed face box and measurements.

    Frames that a filter rejects are refusals under the name of the filter's stage. Faces in HDF5 presentations are
    cropped already: the whole frame is the face. The video is decoded twice, so that no frame is kept in memory.

    Raises:
        ImageRefused: the file can't be decoded at all.
    """
    read = READ[sample.container]
    cropped = sample.container == "hdf5"
    follower = FaceTracker(detector(detect))
    seen: dict[int, Seen] = {}
    times: list[float] = []
    for number, (frame, time) in enumerate(read(Path(sample.path), limits)):
        times.append(time)
        found = None if cropped else follower.step(frame)
        if found:
            seen[number] = found
    boxes = _smoothed(seen)
    wanted = plan.wanted(len(times))
    clip = {
        # Presentations in HDF5 carry no clock.
        "seconds": 1.0 if cropped else times[-1] * len(times) / max(1, len(times) - 1),
        "motion": 0.01 if cropped else motion(list(boxes.values())),
    }
    for number, (frame, _) in enumerate(read(Path(sample.path), limits)):
        if not wanted or number > wanted[-1]:
            return
        if number in wanted:
            found = seen.get(number)
            box = _clipped(boxes[number], frame) if found else None
            values = {**clip, "faces": float(cropped or box is not None), **measured(frame, box)}
            yield _still(sample, number, frame, found, box, values, cropped=cropped)


def _still(
    sample: RawSample,
    number: int,
    frame: Frame,
    found: Seen | None,
    box: Box | None,
    values: dict[str, float],
    *,
    cropped: bool,
) -> Still | Refusal:
    source = f"{sample.source}#{number}"
    rejected, tags = judge(values)
    if rejected:
        value = values[rejected.measure]
        reason = f"{rejected.name} is {value:g} {rejected.unit}, {rejected.low:g} to {rejected.high:g} is allowed"
        return Refusal(source, reason, rejected.name)
    quality = {key: round(value, 4) for key, value in values.items() if key != "faces"} | tags
    if found:
        quality |= {"score": round(found.score, 4), "detected": float(found.detected)}
    whole = (0.0, 0.0, float(frame.shape[1]), float(frame.shape[0]))
    return Still(
        replace(
            sample,
            source=source,
            container="image",
            frame_index=number,
            track_id=str(found.track if found else 0),
            face_box=whole if cropped else box,
            box_frame=None,
            quality=quality,
        ),
        _encoded(frame, lossless=cropped),
    )


def _smoothed(seen: dict[int, Seen]) -> dict[int, Box]:
    """Smoothed boxes by frame; each track on its own."""
    boxes: dict[int, Box] = {}
    for track in sorted({one.track for one in seen.values()}):
        mine = [n for n, one in seen.items() if one.track == track]
        boxes |= dict(zip(mine, smoothed([seen[n].box for n in mine]), strict=True))
    return boxes


def _clipped(box: Box, frame: Frame) -> Box | None:
    """The part of a box inside the frame, or None."""
    x, y, w, h = box
    left, top = max(0.0, x), max(0.0, y)
    right, bottom = min(float(frame.shape[1]), x + w), min(float(frame.shape[0]), y + h)
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None


def _encoded(frame: Frame, *, lossless: bool) -> bytes:
    """JPEG of quality 95 without chroma subsampling, which would soften a screen's colour fringes; or PNG."""
    import cv2

    if lossless:
        return bytes(cv2.imencode(".png", frame[..., ::-1])[1])
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        JPEG_QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    return bytes(cv2.imencode(".jpg", frame[..., ::-1], options)[1])
