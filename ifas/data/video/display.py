"""A decoded frame as a player shows it: upright, with square pixels, without interlacing, in 8-bit sRGB.

A player reads more than pixels: a phone stores every clip as its sensor sees it and says in a matrix how to turn it.
What can't be shown faithfully is refused by name. The table of cases is in docs/datasets.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from ifas.core.errors import ImageRefused
from ifas.core.imaging import ImageLimits

if TYPE_CHECKING:
    import av
    import numpy as np
    import numpy.typing as npt

    #: One frame: uint8 RGB (H, W, 3).
    Frame: TypeAlias = npt.NDArray[np.uint8]

#: Degrees by which a matrix may miss a right angle and still be taken as one, as FFmpeg's own players do.
OFF_BY = 1.0
#: From this size on players take untagged colours as BT.709, below as BT.601.
HD_HEIGHT, HD_WIDTH = 577, 1280


def shown(frame: av.VideoFrame, aspect: float, limits: ImageLimits) -> Frame:
    """The frame as a player shows it.

    Args:
        aspect: width of a stored pixel over its height; the shorter side of a pixel is stretched.

    Raises:
        ImageRefused: too large or too small, HDR, a wide gamut, transparency, or turned by no right angle.
    """
    import numpy as np

    _check_colours(frame)
    width, height = square_pixels(frame.width, frame.height, aspect)
    check_size(width, height, limits)
    pixels: Frame = frame.to_ndarray(  # type: ignore[assignment]
        format="rgb24", width=width, height=height, src_colorspace=_colour_matrix(frame)
    )
    return np.ascontiguousarray(_upright(pixels, frame))


def square_pixels(width: int, height: int, aspect: float) -> tuple[int, int]:
    """Width and height once its pixels are square; nothing is made smaller."""
    return (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))


def check_size(width: int, height: int, limits: ImageLimits) -> None:
    """Raises ImageRefused where a frame has more or fewer pixels than an image may have."""
    if width * height > limits.max_pixels:
        raise ImageRefused(f"video has {width}x{height} pixels, the limit is {limits.max_pixels}")
    if min(width, height) < limits.min_side:
        raise ImageRefused(f"video is {width}x{height}, the smallest side allowed is {limits.min_side}")


def progressive(frames: Iterable[av.VideoFrame], stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Frames without interlacing, as many as went in. From the first interlaced one on, all go through a filter."""
    import av

    graph: av.filter.Graph | None = None
    for frame in frames:
        if graph is None and frame.interlaced_frame:
            graph = av.filter.Graph()
            graph.link_nodes(
                graph.add_buffer(template=stream), graph.add("bwdif", "mode=send_frame"), graph.add("buffersink")
            ).configure()
        if graph is None:
            yield frame
        else:
            graph.vpush(frame)
            yield from _filtered(graph)
    if graph is not None:
        graph.vpush(None)
        yield from _filtered(graph)


def _filtered(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    import av

    while True:
        try:
            yield graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return


def _check_colours(frame: av.VideoFrame) -> None:
    from av.video.reformatter import ColorPrimaries, ColorTrc

    if frame.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67):
        curve = "PQ" if frame.color_trc == ColorTrc.SMPTE2084 else "HLG"
        raise ImageRefused(f"video is HDR ({curve})", "convert it to SDR, as your player shows it")
    wide = {ColorPrimaries.BT2020: "BT.2020", ColorPrimaries.SMPTE431: "DCI-P3", ColorPrimaries.SMPTE432: "Display P3"}
    gamut = wide.get(frame.color_primaries)  # type: ignore[call-overload]
    if gamut:
        raise ImageRefused(f"video has the wide gamut {gamut}", "convert it to BT.709")
    if any(component.is_alpha for component in frame.format.components):
        raise ImageRefused("video has transparent pixels", "flatten it onto a background")


def _colour_matrix(frame: av.VideoFrame) -> str | None:
    """What turns untagged YUV into RGB; None where the frame says it."""
    from av.video.reformatter import ColorRange

    # AVCOL_SPC_UNSPECIFIED is 2. Full range without a tag is JPEG, which is BT.601 at any size.
    if frame.colorspace != 2 or frame.color_range == ColorRange.JPEG or frame.format.is_rgb:
        return None
    return "ITU709" if frame.height >= HD_HEIGHT or frame.width >= HD_WIDTH else "ITU601"


def _upright(pixels: Frame, frame: av.VideoFrame) -> Frame:
    """Pixels turned and mirrored as the frame's display matrix says; a frame without one stays as it is.

    The matrix, 16.16 fixed point, sends x, y to a x + c y, b x + d y (ISO/IEC 14496-12, 8.3.2; y grows downwards).
    """
    import numpy as np
    from av.sidedata.sidedata import Type

    side: Any = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    if side is None:
        return pixels
    a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5].tolist()
    if a * d == b * c:
        raise ImageRefused("video's display matrix is no rotation", "write it again without the matrix")
    slack = math.tan(math.radians(OFF_BY))
    if max(abs(b), abs(c)) <= slack * min(abs(a), abs(d)):
        return pixels[:: 1 if d > 0 else -1, :: 1 if a > 0 else -1]
    if max(abs(a), abs(d)) <= slack * min(abs(b), abs(c)):
        return pixels.transpose(1, 0, 2)[:: 1 if b > 0 else -1, :: 1 if c > 0 else -1]
    turned = math.degrees(math.atan2(b, a)) % 360
    raise ImageRefused(
        f"video is to be shown turned by {turned:.0f} degrees", "only right angles are taken: turn it by one"
    )
