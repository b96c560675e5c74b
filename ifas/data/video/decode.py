"""Frames of a video file, or of an HDF5 presentation, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ifas.core.errors import ImageRefused
from ifas.core.imaging import ImageLimits
from ifas.data.video.display import check_size, progressive, shown, square_pixels

if TYPE_CHECKING:
    import av

    from ifas.data.video.display import Frame

#: A longer video is refused: bona fide and attack clips of all datasets are far shorter.
LONGEST_FRAMES = 20_000
#: Formats are told by content, so they are named: FFmpeg also reads playlists, which open other files or the network.
OPENED = {"format_whitelist": "avi,mov,matroska,mpeg,mpegts,h264,hevc", "protocol_whitelist": "file"}
#: Frames a second where a video does not say them.
USUAL_RATE = 25


def video_frames(path: Path, limits: ImageLimits) -> Iterator[tuple[Frame, float]]:
    """Frames as a player shows them, and their time in seconds from the first, in order of presentation.

    A file that ends early gives the frames before its end.

    Raises:
        ImageRefused: no video that can be decoded, too many or too few pixels, too many frames, a size that changes, or
            colours or a rotation that can't be shown faithfully (see `display`).
    """
    import av

    try:
        with av.open(str(path), options=OPENED, metadata_errors="ignore") as container:
            stream = _picture_stream(container)
            # A pixel without a shape of its own is square.
            aspect = float(stream.sample_aspect_ratio or 1)
            stored = stream.codec_context.width, stream.codec_context.height
            check_size(*square_pixels(*stored, aspect), limits)
            number = 0
            clock = _Clock(stream)
            try:
                size: tuple[int, ...] = ()
                for frame in progressive(container.decode(stream), stream):
                    if number >= LONGEST_FRAMES:
                        raise ImageRefused(f"video has more than {LONGEST_FRAMES} frames")
                    picture = shown(frame, aspect, limits)
                    if number and picture.shape != size:
                        raise ImageRefused("video changes its size on the way", "cut it where the size changes")
                    size = picture.shape
                    yield picture, clock.of(frame)
                    number += 1
            except av.FFmpegError as error:
                if not number:
                    raise ImageRefused(f"video can't be decoded ({type(error).__name__})") from error
            if not number:
                raise ImageRefused("video holds no frame that can be decoded")
    except av.FFmpegError as error:
        raise ImageRefused(f"video can't be decoded ({type(error).__name__})") from error


def _picture_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream that is no cover picture."""
    import av

    if not container.streams.video:
        raise ImageRefused("file holds no video stream")
    moving = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not moving:
        raise ImageRefused("file holds a cover picture and no video stream")
    if moving[0].codec_context is None:
        raise ImageRefused("video's codec is not known")
    return moving[0]


class _Clock:
    """Times of frames, which need not be equally far apart. Where the file has none, the mean rate counts."""

    def __init__(self, stream: av.VideoStream) -> None:
        self._step = 1 / float(stream.average_rate or USUAL_RATE)
        self._first: float | None = None
        self._last = -self._step

    def of(self, frame: av.VideoFrame) -> float:
        """Seconds from the first frame; grows from call to call."""
        said = frame.time
        if said is not None and self._first is None:
            self._first = said - self._last - self._step
        since = self._last if said is None or self._first is None else said - self._first
        self._last = since if since > self._last else self._last + self._step
        return self._last


def hdf5_frames(path: Path, limits: ImageLimits) -> Iterator[tuple[Frame, float]]:
    """Frames of a WMCA file: groups `Frame_<k>` with a dataset `array` (C, H, W), uint8; C is 3 (RGB), or more, where
    the first channel is grey.

    Raises:
        ImageRefused: no HDF5 file, no such groups, or arrays of another kind.
    """
    import h5py
    import numpy as np

    try:
        with h5py.File(path, "r") as file:
            names = [n for n in file if n.startswith("Frame_") and n[6:].isdigit()]
            if not names:
                raise ImageRefused("HDF5 file holds no group Frame_0, Frame_1, ...")
            for number, name in enumerate(sorted(names, key=lambda n: int(n[6:]))):
                array = file[name]["array"]
                if array.dtype != np.uint8 or array.ndim != 3 or array.shape[0] not in (1, 3, 4):
                    raise ImageRefused(f"{name}/array is {array.dtype} {array.shape}, uint8 (3, H, W) is needed")
                _, height, width = array.shape
                if width * height > limits.max_pixels or min(width, height) < limits.min_side:
                    raise ImageRefused(f"{name}/array is {width}x{height} pixels")
                planes = array[:3] if array.shape[0] == 3 else np.repeat(array[:1], 3, axis=0)
                yield np.ascontiguousarray(planes.transpose(1, 2, 0)), float(number)
    except ImageRefused:
        raise
    except (OSError, KeyError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise ImageRefused(f"HDF5 file can't be read ({type(error).__name__})") from error
