"""One example and more of every row of the table in docs/pictures.md, made here byte by byte where Pillow can't."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms

WIDTH, HEIGHT = 96, 64
_rng = np.random.default_rng(15)
_blobs = Image.fromarray(_rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
#: The plain picture that all examples show, RGB and grey.
RGB = np.asarray(_blobs.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
GREY = np.asarray(Image.fromarray(RGB).convert("L"))
GREY_RGB = np.repeat(GREY[..., None], 3, -1)
#: Alpha with all of clear, half and opaque.
ALPHA = np.repeat(np.linspace(0, 255, WIDTH).round().astype(np.uint8)[None], HEIGHT, 0)


class Case(NamedTuple):
    """A file, and the pixels (H, W, 3) that it must give, each to within `off` levels; or the words of its refusal."""

    data: bytes
    shows: np.ndarray | None = None
    off: int = 0
    says: str = ""


def on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return (pixels * share + 255 * (1 - share)).round()


def saved(pixels: np.ndarray | Image.Image, kind: str, mode: str | None = None, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = io.BytesIO()
    (image.convert(mode) if mode else image).save(out, kind, **options)
    return out.getvalue()


# PNG


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: np.ndarray, bits: int, colour: int, chunks: Iterable[tuple[bytes, bytes]] = (), adam7: bool = False,
        after: Iterable[tuple[bytes, bytes]] = ()) -> bytes:  # fmt: skip
    """A PNG of samples (H, W) or (H, W, C), with further chunks before and after the pixels."""
    samples = samples.reshape(*samples.shape[:2], -1)
    passes = [samples]
    if adam7:
        steps = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
        passes = [samples[y::dy, x::dx] for y, dy, x, dx in steps]
    rows = b"".join(b"\0" + _packed(row.ravel(), bits) for part in passes for row in part)
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, colour, 0, 0, int(adam7))
    before = b"".join(chunk(*one) for one in chunks)
    behind = b"".join(chunk(*one) for one in after)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + pixels + behind + chunk(b"IEND", b"")


def _packed(row: np.ndarray, bits: int) -> bytes:
    if bits == 16:
        return row.astype(">u2").tobytes()
    if bits == 8:
        return row.astype(np.uint8).tobytes()
    each = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, -bits:]
    return np.packbits(each.ravel()).tobytes()


def wide(pixels: np.ndarray) -> np.ndarray:
    """The same in 16 bits, with lower bytes that a reader of 8 bits does not see."""
    return pixels.astype(np.uint16) * 256 + _rng.integers(0, 256, pixels.shape)


def few(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey samples of so many bits, and the RGB picture that they are."""
    top = (1 << bits) - 1
    samples = (GREY.astype(int) * top + 127) // 255
    return samples, np.repeat((samples * 255 // top)[..., None], 3, -1)


def keyed(pixels: np.ndarray, key: Sequence[int]) -> np.ndarray:
    """The picture where the one transparent colour is white."""
    return np.where((pixels == key).all(-1, keepdims=True), 255, pixels)


# ICC profiles


def profile(space: bytes, tags: Sequence[tuple[bytes, bytes]], pcs: bytes = b"XYZ ", version: int = 4) -> bytes:
    """An ICC profile (ICC.1:2010) of these tags."""
    at, table, body = 132 + 12 * len(tags), b"", b""
    for name, content in tags:
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"test", version << 24, b"mntr", space, pcs)
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _fixed(values: Iterable[float]) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _xyz(values: Iterable[float]) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(values)


def gamma(value: float) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", 0, 0) + _fixed([value])


_SRGB_CURVE = (
    b"para" + bytes(4) + struct.pack(">HH", 3, 0) + _fixed([2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045])
)
#: Colorants (rows: red, green, blue) for a D50 white.
_SRGB = np.array([[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]])
_P3 = np.array([[0.51512, 0.24120, -0.00105], [0.29198, 0.69225, 0.04189], [0.15710, 0.06657, 0.78407]])
_ADOBE = np.array([[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]])


def rgb_profile(
    colorants: np.ndarray, curve: bytes, version: int = 4, more: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    tags = [(b"wtpt", _xyz([0.9642, 1, 0.8249]))]
    for name, row in zip((b"r", b"g", b"b"), colorants, strict=True):
        tags += [(name + b"XYZ", _xyz(row)), (name + b"TRC", curve)]
    return profile(b"RGB ", [*tags, *more], version=version)


P3 = rgb_profile(_P3, _SRGB_CURVE)
ADOBE_RGB = rgb_profile(_ADOBE, b"curv" + bytes(4) + struct.pack(">IH", 1, 563), version=2)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY_PROFILE = profile(b"GRAY", [(b"wtpt", _xyz([0.9642, 1, 0.8249])), (b"kTRC", gamma(1.0))])


def linear(pixels: np.ndarray) -> np.ndarray:
    v = pixels / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def encoded(light: np.ndarray) -> np.ndarray:
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


#: The plain picture, less colourful so that its colours exist in all spaces, and its numbers in two other spaces.
TAME = (RGB * 0.6 + 60).astype(np.uint8)
_light = linear(TAME) @ _SRGB
IN_P3 = (encoded(_light @ np.linalg.inv(_P3)) * 255).round().astype(np.uint8)
IN_ADOBE = ((_light @ np.linalg.inv(_ADOBE)).clip(0, 1) ** (256 / 563) * 255).round().astype(np.uint8)
#: What a grey profile with gamma 1 makes of the grey picture.
_brighter = (encoded(GREY_RGB / 255) * 255).round()


def ink_profile() -> bytes:
    """A CMYK profile whose every ink is grey: full C, M and Y take a third of the lightness each, full K all of it."""
    corners = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    table = bytes(v for c, m, y, k in corners for v in (round(255 * (1 - k) * (1 - (c + m + y) / 3)), 128, 128))
    ramp = bytes(range(256))
    body = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + _fixed([1, 0, 0, 0, 1, 0, 0, 0, 1]) + ramp * 4 + table + ramp * 3
    return profile(b"CMYK", [(b"A2B0", body), (b"A2B1", body)], pcs=b"Lab ", version=2)


INK = ink_profile()


def endless_profile(elements: int) -> bytes:
    """An RGB profile, whole but for a tag D2B0 that chains one matrix so many times: seconds of work in few bytes."""
    matrix = b"matf" + bytes(4) + struct.pack(">HH", 3, 3) + struct.pack(">12f", 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    place = struct.pack(">II", 16 + 8 * elements, len(matrix))
    chain = b"mpet" + bytes(4) + struct.pack(">HHI", 3, 3, elements) + place * elements + matrix
    return rgb_profile(_P3, _SRGB_CURVE, more=[(b"D2B0", chain)])


# JPEG


def frame_changed(offset: int, value: int) -> bytes:
    """A JPEG with one byte of its frame header (from the marker on) changed."""
    data = bytearray(saved(RGB, "JPEG"))
    data[data.index(b"\xff\xc0") + offset] = value
    return bytes(data)


_CMYK = Image.fromarray(255 - RGB).convert("RGB")
_INKS = np.dstack([np.asarray(_CMYK), np.full((HEIGHT, WIDTH), 40, np.uint8)])
_PRINTED = (RGB.astype(float) * 215 / 255).round()


def cmyk(**options: Any) -> bytes:
    return saved(Image.fromarray(_INKS, "CMYK"), "JPEG", quality=98, **options)


#: Cyan alone: by the profile it is a grey of lightness 100 (1 - C / 3).
_CYAN = np.dstack([255 - GREY, *[np.zeros_like(GREY)] * 3])
_lightness = 100 * (1 - (255 - GREY_RGB) / 765)
_CYAN_SHOWN = encoded(((_lightness + 16) / 116) ** 3) * 255


def ycck() -> bytes:
    """The same in the form that Photoshop writes: Pillow writes the numbers, and the Adobe marker is changed."""
    ycc = np.asarray(_CMYK.convert("YCbCr"))
    data = bytearray(saved(Image.fromarray(np.dstack([255 - ycc, _INKS[..., 3]]), "CMYK"), "JPEG", quality=98))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def turned(orientation: Any) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


#: How the eight orientations are undone.
_TURNS = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[:, ::-1],
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: p.swapaxes(0, 1)[::-1],
}
_PAGE = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
_PALETTE = Image.fromarray(RGB).quantize(64)
_PALETTE_RGB = np.asarray(_PALETTE.convert("RGB"))
_INDEX = np.asarray(_PALETTE)
_FADED = (np.arange(256) * 4 % 256).astype(np.uint8)
_NO_EXIF = b"Exif\0\0II*\0\x08\0\0\0\xff\xff"
_XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'
_RGB16, _GREY16 = wide(RGB), wide(GREY)
_PALETTE_ALPHA = _PALETTE.convert("PA")
_PALETTE_ALPHA.putalpha(Image.fromarray(ALPHA))

#: By the first column of the table, in its order.
ROWS: dict[str, list[Case]] = {
    "JPEG, colour or grey, baseline or progressive": [
        Case(saved(RGB, "JPEG", quality=98, subsampling=0), RGB, 6),
        Case(saved(RGB, "JPEG", quality=98, subsampling=0, progressive=True), RGB, 6),
        Case(saved(GREY, "JPEG", quality=98), GREY_RGB, 4),
    ],
    "JPEG, CMYK or YCCK": [Case(cmyk(), _PRINTED, 6), Case(ycck(), _PRINTED, 8)],
    "JPEG with further images (MPF)": [
        Case(saved(_PAGE[0], "MPO", save_all=True, append_images=_PAGE[1:], quality=98, subsampling=0), RGB, 6)
    ],
    "JPEG with 12 bits per channel": [Case(frame_changed(4, 12), says="12 bits")],
    "JPEG, lossless, arithmetic-coded or hierarchical": [
        Case(frame_changed(1, 0xC3), says="lossless"),
        Case(frame_changed(1, 0xC9), says="arithmetic-coded"),
        Case(frame_changed(1, 0xC5), says="hierarchical"),
    ],
    "JPEG with 2, or more than 4, channels": [
        Case(frame_changed(9, 2), says="2 channels"),
        Case(frame_changed(9, 5), says="5 channels"),
    ],
    "PNG, grey, 1 to 8 bits": [Case(png(few(bits)[0], bits, 0), few(bits)[1]) for bits in (1, 2, 4, 8)],
    "PNG, grey, 16 bits": [Case(png(_GREY16, 16, 0), GREY_RGB)],
    "PNG, RGB, 8 or 16 bits": [Case(png(RGB, 8, 2), RGB), Case(png(_RGB16, 16, 2), RGB)],
    "PNG, grey with alpha, 8 or 16 bits": [
        Case(png(np.dstack([GREY, ALPHA]), 8, 4), on_white(GREY_RGB, ALPHA), 1),
        Case(png(wide(np.dstack([GREY, ALPHA])), 16, 4), on_white(GREY_RGB, ALPHA), 1),
    ],
    "PNG, RGB with alpha, 8 or 16 bits": [
        Case(png(np.dstack([RGB, ALPHA]), 8, 6), on_white(RGB, ALPHA), 1),
        Case(png(wide(np.dstack([RGB, ALPHA])), 16, 6), on_white(RGB, ALPHA), 1),
    ],
    "PNG, palette": [
        Case(saved(_PALETTE, "PNG"), _PALETTE_RGB),
        Case(png(few(2)[0], 2, 3, [(b"PLTE", bytes([0] * 3 + [85] * 3 + [170] * 3 + [255] * 3))]), few(2)[1]),
    ],
    "PNG, palette with transparent entries": [
        Case(saved(_PALETTE, "PNG", transparency=3), np.where(_INDEX[..., None] == 3, 255, _PALETTE_RGB)),
        Case(saved(_PALETTE, "PNG", transparency=_FADED.tobytes()), on_white(_PALETTE_RGB, _FADED[_INDEX]), 1),
    ],
    "PNG with one transparent grey (tRNS)": [
        *(
            Case(
                png(few(bits)[0], bits, 0, [(b"tRNS", struct.pack(">H", few(bits)[0][5, 7]))]),
                keyed(few(bits)[1], few(bits)[1][5, 7]),
            )
            for bits in (1, 2, 4, 8)
        ),
        Case(
            png(_GREY16, 16, 0, [(b"tRNS", struct.pack(">H", _GREY16[5, 7]))]),
            np.where(_GREY16[..., None] == _GREY16[5, 7], 255, GREY_RGB),
        ),
    ],
    "PNG, RGB, 8 bits, with one transparent colour (tRNS)": [
        Case(png(RGB, 8, 2, [(b"tRNS", struct.pack(">HHH", *RGB[5, 7]))]), keyed(RGB, RGB[5, 7]))
    ],
    "PNG, RGB, 16 bits, with one transparent colour (tRNS)": [
        Case(png(_RGB16, 16, 2, [(b"tRNS", struct.pack(">HHH", *_RGB16[5, 7]))]), says="transparent colour")
    ],
    "PNG, interlaced": [Case(png(RGB, 8, 2, adam7=True), RGB), Case(png(_GREY16, 16, 0, adam7=True), GREY_RGB)],
    "PNG with gAMA, cHRM or cICP": [
        Case(png(RGB, 8, 2, [(b"gAMA", struct.pack(">I", 100_000))]), RGB),
        Case(png(RGB, 8, 2, [(b"cHRM", struct.pack(">8I", *[30_000] * 8)), (b"cICP", bytes([9, 16, 0, 1]))]), RGB),
    ],
    "PNG, animated": [Case(saved(_PAGE[0], "PNG", save_all=True, append_images=_PAGE[1:]), says="more than one frame")],
    "WebP, lossy or lossless": [
        Case(saved(RGB, "WEBP", quality=95), RGB, 40),
        Case(saved(RGB, "WEBP", lossless=True), RGB),
    ],
    "WebP with alpha": [
        Case(saved(np.dstack([RGB, ALPHA]), "WEBP", lossless=True, exact=True), on_white(RGB, ALPHA), 1),
        Case(saved(np.dstack([RGB, ALPHA]), "WEBP", quality=95), on_white(RGB, ALPHA), 40),
    ],
    "WebP, animated": [
        Case(saved(_PAGE[0], "WEBP", save_all=True, append_images=_PAGE[1:]), says="more than one frame")
    ],
    "EXIF orientation": [
        *(
            Case(saved(RGB, "JPEG", quality=98, subsampling=0, exif=turned(n)), turn(RGB), 6)
            for n, turn in _TURNS.items()
        ),
        *(Case(saved(RGB, "PNG", exif=turned(n)), turn(RGB)) for n, turn in _TURNS.items()),
        *(Case(saved(RGB, "WEBP", lossless=True, exif=turned(n)), turn(RGB)) for n, turn in _TURNS.items()),
        Case(png(RGB, 8, 2, after=[(b"eXIf", turned(6).tobytes()[6:])]), _TURNS[6](RGB)),
    ],
    "Orientation in XMP": [
        Case(png(RGB, 8, 2, [(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _XMP)]), RGB),
        Case(saved(RGB, "JPEG", quality=98, subsampling=0, xmp=_XMP), RGB, 6),
    ],
    "EXIF that is broken": [
        Case(saved(RGB, "JPEG", quality=98, subsampling=0, exif=_NO_EXIF), RGB, 6),
        Case(saved(RGB, "PNG", exif=b"Exif\0\0no TIFF"), RGB),
        Case(saved(RGB, "PNG", exif=turned(9)), RGB),
        Case(saved(RGB, "WEBP", lossless=True, exif=b"Exif\0\0MM\0*"), RGB),
    ],
    "ICC profile for RGB": [
        Case(saved(IN_P3, "PNG", icc_profile=P3), TAME, 3),
        Case(saved(IN_ADOBE, "PNG", icc_profile=ADOBE_RGB), TAME, 3),
        Case(saved(IN_P3, "JPEG", icc_profile=P3, quality=98, subsampling=0), TAME, 8),
        Case(saved(IN_P3, "WEBP", icc_profile=P3, lossless=True), TAME, 3),
        Case(saved(np.dstack([IN_P3, ALPHA]), "PNG", icc_profile=P3), on_white(TAME, ALPHA), 3),
        Case(saved(IN_P3, "PNG", icc_profile=endless_profile(4000)), TAME, 3),
    ],
    "ICC profile for grey": [
        Case(saved(GREY, "PNG", icc_profile=GREY_PROFILE), _brighter, 3),
        Case(saved(GREY, "JPEG", icc_profile=GREY_PROFILE, quality=98), _brighter, 12),
        Case(
            png(_GREY16, 16, 0, [(b"iCCP", b"g\0\0" + zlib.compress(GREY_PROFILE))]),
            _brighter,
            3,
        ),
        Case(
            png(wide(np.dstack([GREY, ALPHA])), 16, 4, [(b"iCCP", b"g\0\0" + zlib.compress(GREY_PROFILE))]),
            on_white(_brighter, ALPHA),
            3,
        ),
    ],
    "ICC profile for CMYK": [
        Case(saved(Image.fromarray(_CYAN, "CMYK"), "JPEG", quality=98, icc_profile=INK), _CYAN_SHOWN, 4),
    ],
    "ICC profile that is sRGB": [
        Case(saved(RGB, "PNG", icc_profile=SRGB), RGB),
        Case(saved(RGB, "PNG", icc_profile=rgb_profile(_SRGB, _SRGB_CURVE)), RGB),
    ],
    "ICC profile that can't be used": [
        Case(saved(RGB, "PNG", icc_profile=P3[:200]), RGB),
        Case(saved(RGB, "PNG", icc_profile=b"no profile"), RGB),
        Case(saved(RGB, "PNG", icc_profile=INK), RGB),
        Case(saved(RGB, "PNG", icc_profile=GREY_PROFILE), RGB),
        Case(saved(GREY, "PNG", icc_profile=P3), GREY_RGB),
        Case(cmyk(icc_profile=P3), _PRINTED, 6),
        Case(saved(RGB, "WEBP", lossless=True, icc_profile=P3 + bytes(4 * 2**20)), RGB),
    ],
    "Any other format": [
        Case(saved(RGB, kind), says="none of JPEG, PNG, WEBP") for kind in ("BMP", "GIF", "TIFF", "AVIF", "JPEG2000")
    ],
}

#: Modes of Pillow that come with formats which only a changed `ImageLimits.formats` accepts.
OTHER_MODES: dict[str, Case] = {
    "1": Case(saved(GREY, "TIFF", "1"), np.asarray(Image.fromarray(GREY).convert("1").convert("RGB"))),
    "LA": Case(saved(np.dstack([GREY, ALPHA]), "TIFF"), on_white(GREY_RGB, ALPHA), 1),
    "P": Case(saved(_PALETTE, "TIFF"), _PALETTE_RGB),
    "PA": Case(saved(_PALETTE_ALPHA, "TIFF"), on_white(_PALETTE_RGB, ALPHA), 1),
    "RGBA": Case(saved(np.dstack([RGB, ALPHA]), "TIFF"), on_white(RGB, ALPHA), 1),
    "CMYK": Case(saved(Image.fromarray(_INKS, "CMYK"), "TIFF"), _PRINTED, 1),
    "YCbCr": Case(saved(RGB, "TIFF", "YCbCr"), RGB, 3),
    "I;16": Case(saved(Image.fromarray(_GREY16.astype(np.uint16)), "TIFF"), GREY_RGB),
    "I": Case(saved(GREY.astype(np.int32), "TIFF"), says="32-bit integers"),
    "F": Case(saved(GREY.astype(np.float32), "TIFF"), says="floating-point"),
    "LAB": Case(saved(Image.merge("LAB", [Image.fromarray(GREY)] * 3), "TIFF"), says="CIELAB"),
}
