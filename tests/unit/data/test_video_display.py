"""Clips are packed as a player shows them: turned, mirrored, square pixels, right colours; or refused with a reason."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from benchmarks.clips import make_clip
from ifas.core.errors import ImageRefused
from ifas.core.imaging import ImageLimits, decode
from ifas.core.manifest import read_manifest
from ifas.data.pack import pack
from ifas.data.shards import ShardImages
from ifas.data.video.decode import video_frames
from ifas.faces.boxes import Box, iou

LIMITS = ImageLimits()
Portrait = tuple[np.ndarray, Box]
ONE = 1 << 16
#: a, b, c, d of ISO/IEC 14496-12: x' = a x + c y, y' = b x + d y. And the same done by numpy, by hand.
SHOWN: dict[str, tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]]] = {
    "as stored": ((ONE, 0, 0, ONE), lambda p: p),
    # What a phone held upright writes: the sensor lies on its side.
    "90 clockwise": ((0, ONE, -ONE, 0), lambda p: np.rot90(p, -1)),
    "180": ((-ONE, 0, 0, -ONE), lambda p: np.rot90(p, 2)),
    "270 clockwise": ((0, -ONE, ONE, 0), lambda p: np.rot90(p, 1)),
    "mirrored": ((-ONE, 0, 0, ONE), lambda p: p[:, ::-1]),
    "upside down": ((ONE, 0, 0, -ONE), lambda p: p[::-1]),
    "mirrored, 90 clockwise": ((0, ONE, ONE, 0), lambda p: np.rot90(p[:, ::-1], 1)),
    "mirrored, 270 clockwise": ((0, -ONE, -ONE, 0), lambda p: np.rot90(p[:, ::-1], -1)),
}


def corners() -> np.ndarray:
    """A picture that looks different after every turn: a colour in each corner."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32], picture[:24, 32:], picture[24:, :32] = (200, 30, 30), (30, 180, 30), (40, 40, 220)
    picture[24:, 32:] = 230
    return picture


def write(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    matrix: tuple[int, int, int, int] | None = None,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    times: Iterable[int] = (),
    source: str = "rgb24",
    **tags: int,
) -> Path:
    """Encodes frames with what a player reads beside them. `times` are in hundredths of a second."""
    frames, said = list(frames), list(times)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        context = stream.codec_context
        context.thread_count = 1
        # As good as lossless: what is measured here is not the codec.
        context.options = {"crf": "1", "preset": "ultrafast", "x265-params": "log-level=none", **(options or {})}
        if said:
            context.time_base = Fraction(1, 100)
        if aspect:
            context.sample_aspect_ratio = aspect
        if matrix:
            a, b, c, d = matrix
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for name, value in tags.items():
            setattr(context, name, value)
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format=source)
            frame.pts = said[number] if said else number
            if said:
                frame.time_base = Fraction(1, 100)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def read(path: Path, limits: ImageLimits = LIMITS) -> list[np.ndarray]:
    return [frame for frame, _ in video_frames(path, limits)]


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal except for the codec's changes at edges between colours."""
    return a.shape == b.shape and float(np.median(np.abs(a.astype(int) - b))) <= 3


@pytest.mark.parametrize("ending", ["mp4", "mov"])
@pytest.mark.parametrize("name", SHOWN)
def test_frames_come_out_as_players_show_them(name: str, ending: str, tmp_path: Path) -> None:
    matrix, turned = SHOWN[name]
    path = write(tmp_path / f"clip.{ending}", [corners()] * 3, matrix=matrix)
    a, b, c, d = matrix
    written = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    assert written in path.read_bytes(), "the clip has no such matrix in its track header"
    found = read(path)
    assert len(found) == 3
    assert all(close(one, turned(corners())) for one in found)
    if "irror" not in name and "upside" not in name:  # OpenCV's player turns, but does not mirror
        player = cv2.VideoCapture(str(path))
        there, picture = player.read()
        assert there
        assert close(picture[..., ::-1], found[0])


def test_without_a_matrix_nothing_changes(tmp_path: Path) -> None:
    plain = read(write(tmp_path / "plain.mp4", [corners()] * 2))
    assert np.array_equal(plain, read(write(tmp_path / "stored.mp4", [corners()] * 2, matrix=SHOWN["as stored"][0])))
    with av.open(str(tmp_path / "plain.mp4")) as container:
        assert np.array_equal(plain[0], next(container.decode(video=0)).to_ndarray(format="rgb24"))


def turn(degrees: float) -> tuple[int, int, int, int]:
    cos, sin = (round(ONE * f(np.radians(degrees))) for f in (np.cos, np.sin))
    return cos, sin, -sin, cos


def test_odd_angles_are_refused_and_near_ones_taken(tmp_path: Path) -> None:
    for degrees in (0.5, 90.5, 179.5, 270.4):
        path = write(tmp_path / "near.mp4", [corners()], matrix=turn(degrees))
        assert close(read(path)[0], np.rot90(corners(), -round(degrees / 90))), degrees
    for degrees in (2, 30, 45, 135, 200, 300):
        path = write(tmp_path / "odd.mp4", [corners()], matrix=turn(degrees))
        with pytest.raises(ImageRefused, match=f"turned by {degrees} degrees"):
            read(path)
    with pytest.raises(ImageRefused, match="no rotation"):
        read(write(tmp_path / "zero.mp4", [corners()], matrix=(0, 0, 0, 0)))


@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(3, 4)])
def test_pixels_that_are_not_square_are_stretched(aspect: Fraction, tmp_path: Path) -> None:
    """A disc is round where the clip is shown, lying or turned."""
    disc = np.zeros((96, 128), np.uint8)
    size = (120, 90) if aspect < 1 else (90, 120)
    cv2.ellipse(disc, (64, 48), (round(size[0] / 3), round(size[1] / 3)), 0, 0, 360, 255, -1)
    frames = [np.repeat(disc[..., None], 3, axis=2)]
    shape = (96, 171) if aspect > 1 else (128, 128)
    for matrix, expected in ((None, shape), (SHOWN["90 clockwise"][0], shape[::-1])):
        (found,) = read(write(tmp_path / "disc.mp4", frames, aspect=aspect, matrix=matrix))
        assert found.shape[:2] == expected
        y, x = np.nonzero(found[..., 0] > 127)
        assert np.ptp(x) == pytest.approx(np.ptp(y), abs=2)
    with pytest.raises(ImageRefused, match="pixels, the limit"):
        read(tmp_path / "disc.mp4", ImageLimits(max_pixels=128 * 96 + 1, min_side=8))


@pytest.mark.parametrize(
    ("what", "given"),
    [
        ("limited range", {}),
        ("full range", {"pixels": "yuvj420p"}),
        ("10 bits", {"pixels": "yuv420p10le"}),
        ("10 bits, HEVC", {"codec": "libx265", "pixels": "yuv420p10le"}),
        ("4:4:4", {"pixels": "yuv444p"}),
        ("motion JPEG", {"codec": "mjpeg", "pixels": "yuvj420p"}),
    ],
)
def test_colours_are_those_that_went_in(what: str, given: dict[str, str], tmp_path: Path) -> None:
    (found,) = read(write(tmp_path / "clip.mkv", [corners()], **given))  # type: ignore[arg-type]
    for y, x in ((6, 6), (6, 58), (42, 6), (42, 58)):
        assert np.abs(found[y, x].astype(int) - corners()[y, x]).max() <= 6, what


@pytest.mark.parametrize(("tag", "matrix"), [(1, "ITU709"), (2, "ITU709"), (6, "ITU601")])
def test_hd_clips_have_the_colours_of_their_matrix(tag: int, matrix: str, tmp_path: Path) -> None:
    """Tagged BT.709, not tagged (which players take for BT.709 at this size), tagged BT.601."""
    red = np.full((720, 1280, 3), (200, 30, 30), np.uint8)
    yuv = av.VideoFrame.from_ndarray(red, format="rgb24").reformat(format="yuv420p", dst_colorspace=matrix).to_ndarray()
    path = tmp_path / "hd.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.codec_context.options = {"preset": "ultrafast"}
        stream.codec_context.colorspace = tag
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(yuv, format="yuv420p")), *stream.encode()]:
            container.mux(packet)
    (found,) = read(path)
    assert np.abs(found[360, 640].astype(int) - red[0, 0]).max() <= 4


@pytest.mark.parametrize(
    ("said", "given"),
    [
        (r"HDR \(PQ\)", {"color_trc": 16, "color_primaries": 9, "colorspace": 9}),
        (r"HDR \(HLG\)", {"color_trc": 18, "color_primaries": 9, "colorspace": 9}),
        (r"wide gamut BT\.2020", {"color_trc": 14, "color_primaries": 9, "colorspace": 9}),
        ("wide gamut Display P3", {"color_primaries": 12, "colorspace": 1}),
    ],
)
def test_colours_that_need_a_judgement_are_refused_by_name(said: str, given: dict[str, int], tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", [corners()], pixels="yuv420p10le", **given)  # type: ignore[arg-type]
    with pytest.raises(ImageRefused, match=said):
        read(path)


def test_transparent_clips_are_refused_by_name(tmp_path: Path) -> None:
    clear = np.dstack([corners(), np.full((48, 64), 90, np.uint8)])
    with pytest.raises(ImageRefused, match="transparent"):
        read(write(tmp_path / "clip.mov", [clear], codec="png", pixels="rgba", source="rgba"))


def test_interlaced_clips_lose_their_combs(tmp_path: Path) -> None:
    """A bar moves between the two fields of each frame: its edges are jagged unless the frames are deinterlaced."""

    def field(at: int) -> np.ndarray:
        picture = np.full((96, 128, 3), 40, np.uint8)
        picture[:, at : at + 20] = 220
        return picture

    frames = []
    for number in range(8):
        woven = field(10 + 8 * number)
        woven[1::2] = field(14 + 8 * number)[1::2]
        frames.append(woven)

    def combs(picture: np.ndarray) -> float:
        grey = picture[..., 1].astype(float)
        return float(np.abs(grey[1:-1] - (grey[:-2] + grey[2:]) / 2).mean())

    interlaced = read(write(tmp_path / "i.mp4", frames, options={"flags": "+ildct+ilme"}))
    assert len(interlaced) == len(frames)
    assert all(combs(one) < 0.25 * combs(frame) for one, frame in zip(interlaced[1:-1], frames[1:-1], strict=True))
    progressive = read(write(tmp_path / "p.mp4", frames))
    assert all(combs(one) > 0.7 * combs(frame) for one, frame in zip(progressive, frames, strict=True))


def test_times_are_those_of_the_file(tmp_path: Path) -> None:
    """A phone in the dark takes fewer frames: the timestamps decide how long the clip lasts, not its mean rate."""
    times = [50, 54, 58, 62, 162, 262]
    path = write(tmp_path / "slow.mp4", [corners()] * 6, times=times)
    found = [time for _, time in video_frames(path, LIMITS)]
    assert found == pytest.approx([(t - 50) / 100 for t in times], abs=0.01)


def boxes(data: bytes) -> list[bytes]:
    """The boxes of an MP4 file, or of one of its boxes without its own header."""
    found = []
    while data:
        size = int.from_bytes(data[:4], "big")
        found.append(data[:size])
        data = data[size:]
    return found


def with_cover(path: Path, cover: bytes, moving: bool) -> Path:
    """A clip, or else a moment of silence, with a cover picture that stands before it, as stream 0."""
    with av.open(str(path), "w") as container:
        main = container.add_stream("libx264" if moving else "aac", rate=25 if moving else 48000)
        if moving:
            main.width, main.height, main.pix_fmt = 64, 48, "yuv420p"
        picture = container.add_stream("mjpeg", rate=25)
        picture.width, picture.height, picture.pix_fmt = 80, 80, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        packet = av.Packet(cover)
        packet.stream, packet.pts, packet.dts = picture, 0, 0
        container.start_encoding()
        container.mux(packet)
        if moving:
            frames = [av.VideoFrame.from_ndarray(corners(), format="rgb24")] * 3
        else:
            frames = [av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")]
            frames[0].sample_rate = 48000
        for frame in [*frames, None]:
            for made in main.encode(frame):
                container.mux(made)
    parts = boxes(path.read_bytes())
    index = next(n for n, part in enumerate(parts) if part[4:8] == b"moov")
    inside = sorted(boxes(parts[index][8:]), key=lambda part: part[4:8] != b"udta")
    parts[index] = parts[index][:8] + b"".join(inside)
    path.write_bytes(b"".join(parts))
    with av.open(str(path)) as container:
        assert container.streams.video[0].disposition & av.stream.Disposition.attached_pic
    return path


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    cover = bytes(cv2.imencode(".jpg", np.full((80, 80, 3), (220, 20, 20), np.uint8))[1])
    found = read(with_cover(tmp_path / "clip.mp4", cover, moving=True))
    assert len(found) == 3
    assert close(found[0], corners())
    with pytest.raises(ImageRefused, match="cover picture"):
        read(with_cover(tmp_path / "song.mp4", cover, moving=False))


def test_a_size_that_changes_on_the_way_is_refused(tmp_path: Path) -> None:
    """Also when the later frames are larger than the limit: the header of the file says nothing of them."""
    raw = b""
    for side in (64, 128):
        path = write(tmp_path / f"{side}.h264", [np.full((side, side, 3), 90, np.uint8)] * 3)
        raw += path.read_bytes()
    both = tmp_path / "both.mp4"
    both.write_bytes(raw)  # what a file holds is decided by its bytes
    with pytest.raises(ImageRefused, match="changes its size"):
        read(both)
    with pytest.raises(ImageRefused, match="128x128 pixels, the limit"):
        read(both, ImageLimits(max_pixels=64 * 64))


def test_pictures_sizes_and_boxes_of_a_packed_clip_agree(portrait: Portrait, tmp_path: Path) -> None:
    """All eight ways in which a phone may store one clip give the same upright pictures and boxes."""
    frames = [cv2.resize(f, (320, 240), interpolation=cv2.INTER_AREA) for f in make_clip(portrait[0], 3, 8).frames]
    undo = {"90 clockwise": "270 clockwise", "270 clockwise": "90 clockwise"}
    root = tmp_path / "Replay"
    for number, (name, (matrix, _)) in enumerate(SHOWN.items(), start=1):
        stored = [np.ascontiguousarray(SHOWN[undo.get(name, name)][1](frame)) for frame in frames]
        file = f"client{number:03d}_session01_webcam_authenticate_controlled_1.mov"
        write(root / "train/real" / file, stored, matrix=matrix)
    report = pack("replay-attack", root, tmp_path / "out", name="replay-attack", workers=1)
    assert not report.refused
    rows = read_manifest(tmp_path / "out")
    assert len(rows) == 2 * len(SHOWN)
    images = ShardImages(tmp_path / "out")
    height, width = frames[0].shape[:2]
    first = {row.frame_index: row for row in rows.itertuples() if "client001" in row.source}
    for row in rows.itertuples():
        picture = decode(images.read(row.shard, row.row))
        assert picture.shape == (height, width, 3)
        assert (row.width, row.height) == (width, height)
        assert np.abs(picture.astype(int) - frames[row.frame_index]).mean() < 8, row.source
        assert iou(tuple(row.face_box), tuple(first[row.frame_index].face_box)) > 0.9, row.source


def test_a_playlist_that_is_named_like_a_clip_opens_nothing_else(tmp_path: Path) -> None:
    """FFmpeg recognises a playlist by its content, and would then read other files, or load from the network."""
    asked: list[str] = []

    class Noted(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *args: object) -> None:
            """Not on the terminal."""

    server = HTTPServer(("127.0.0.1", 0), Noted)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/secret"
    write(tmp_path / "other.mp4", [corners()] * 3)
    lists = {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}.ts\n#EXT-X-ENDLIST\n",
        "dash.mp4": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL></MPD>',
        "concat.mp4": "ffconcat version 1.0\nfile other.mp4\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ImageRefused, match="can't be decoded"):
            read(tmp_path / name)
    server.shutdown()
    assert not asked
