"""Frames of a video file, or of an HDF5 presentation, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ifas.core.errors import ImageRefused
from ifas.core.imaging import ImageLimits

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    #: One frame: uint8 RGB (H, W, 3).
    Frame: TypeAlias = npt.NDArray[np.uint8]

#: A longer video is refused: bona fide and attack clips of all datasets are far shorter.
LONGEST_FRAMES = 20_000


def video_frames(path: Path, limits: ImageLimits) -> Iterator[tuple[Frame, float]]:
    """Frames and their time in seconds, in order of presentation.

    A file that ends early gives the frames before its end.

    Raises:
        ImageRefused: no video that can be decoded, too many pixels, or too many frames.
    """
    import av

    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.video:
                raise ImageRefused("file holds no video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise ImageRefused("video's codec is not known")
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > limits.max_pixels:
                raise ImageRefused(f"video has {width}x{height} pixels, the limit is {limits.max_pixels}")
            if min(width, height) < limits.min_side:
                raise ImageRefused(f"video is {width}x{height}, the smallest side allowed is {limits.min_side}")
            rate = float(stream.average_rate or 25)
            number = 0
            try:
                for frame in container.decode(stream):
                    if number >= LONGEST_FRAMES:
                        raise ImageRefused(f"video has more than {LONGEST_FRAMES} frames")
                    yield frame.to_ndarray(format="rgb24"), number / rate  # type: ignore[misc]
                    number += 1
            except av.FFmpegError as error:
                if not number:
                    raise ImageRefused(f"video can't be decoded ({type(error).__name__})") from error
            if not number:
                raise ImageRefused("video holds no frame that can be decoded")
    except av.FFmpegError as error:
        raise ImageRefused(f"video can't be decoded ({type(error).__name__})") from error


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
