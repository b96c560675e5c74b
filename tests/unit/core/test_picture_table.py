"""docs/pictures.md, row by row: what becomes of each kind of file, in all three readers of pictures."""

from __future__ import annotations

import io
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ifas.core.colour import srgb_transform
from ifas.core.errors import ImageRefused
from ifas.core.imaging import ImageLimits, decode, glance, header
from tests.unit.core.picture_kinds import (
    ADOBE_RGB,
    GREY_PROFILE,
    INK,
    OTHER_MODES,
    P3,
    RGB,
    ROWS,
    Case,
    endless_profile,
    few,
    png,
    saved,
)

DOCS = Path(__file__).parents[3] / "docs" / "pictures.md"
CASES = [pytest.param(case, id=f"{row} {n}") for row, cases in ROWS.items() for n, case in enumerate(cases)]


def documented(section: str) -> list[list[str]]:
    """Cells of the table under a heading of the docs."""
    text = DOCS.read_text(encoding="utf-8").split(f"## {section}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


def test_the_table_in_the_docs_has_exactly_these_rows() -> None:
    for section, rows in (("Files", ROWS), ("Other modes", {mode: [case] for mode, case in OTHER_MODES.items()})):
        table = documented(section)
        assert [row[0].strip("`") for row in table] == list(rows)
        for (name, what), cases in zip(table, rows.values(), strict=True):
            refused = {bool(case.says) for case in cases}
            assert refused == {what.startswith("**refused**")}, name


def check(case: Case, limits: ImageLimits | None = None) -> None:
    if case.says:
        for read in (decode, glance, header):
            with pytest.raises(ImageRefused, match=case.says):
                read(case.data, limits)
        return
    assert case.shows is not None
    pixels = decode(case.data, limits)
    assert pixels.dtype == np.uint8
    assert pixels.shape == case.shows.shape
    assert np.abs(pixels - case.shows.astype(float)).max() <= case.off
    assert header(case.data, limits) == header(memoryview(case.data), limits) == pixels.shape[1::-1]
    grey, width, height = glance(case.data, limits)
    assert (width, height) == pixels.shape[1::-1]
    # A small JPEG is not scaled, so that the grey copy is that of the pixels, to the rounding of two ways there.
    assert np.abs(grey - np.asarray(Image.fromarray(pixels).convert("L"), dtype=float)).max() <= max(3, case.off)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("error")
def test_a_file_is_shown_or_refused_as_the_docs_say(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("mode", OTHER_MODES)
def test_a_mode_of_another_format_is_shown_or_refused_by_name(mode: str) -> None:
    with Image.open(io.BytesIO(OTHER_MODES[mode].data)) as image:
        assert image.mode == mode
    check(OTHER_MODES[mode], ImageLimits(formats=("TIFF",)))


@pytest.mark.parametrize("icc", [P3, None])
def test_the_grey_copy_of_a_large_jpeg_is_small_and_has_its_colours(icc: bytes | None) -> None:
    large = np.asarray(Image.fromarray(RGB).resize((960, 640)))
    data = saved(large, "JPEG", icc_profile=icc)
    grey, width, height = glance(data)
    assert (width, height) == (960, 640)
    assert grey.shape == (80, 120)
    shown = Image.fromarray(decode(data)).convert("L").resize((120, 80), Image.Resampling.BOX)
    assert np.abs(grey - np.asarray(shown, dtype=float)).mean() < 2


@pytest.mark.parametrize("profile", [P3, ADOBE_RGB, GREY_PROFILE, INK], ids=["P3", "Adobe RGB", "grey", "ink"])
def test_threads_share_a_transform_and_give_the_same_pixels(profile: bytes) -> None:
    mode = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}[profile[16:20]]
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 4), dtype=np.uint8), "CMYK")
    image = image if mode == "CMYK" else image.convert(mode)
    srgb_transform.cache_clear()

    def shown(_: int) -> bytes:
        transform = srgb_transform(profile, mode)
        assert transform is not None
        return transform.apply(image).tobytes()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(shown, range(24)))) == 1


@pytest.mark.parametrize("chunk", [(b"iCCP", b"name\0\0"), (b"zTXt", b"name\0\0")])
def test_a_profile_or_text_that_unpacks_to_much_is_refused_by_the_header(chunk: tuple[bytes, bytes]) -> None:
    name, head = chunk
    bomb = png(RGB, 8, 2, [(name, head + zlib.compress(bytes(3 * 2**20)))])
    assert len(bomb) < 32_000
    check(Case(bomb, says="too large"))


def test_text_that_is_named_like_what_pillow_knows_is_text() -> None:
    """Pillow keeps text chunks beside what it reads from the file, under the same names."""
    for name in (b"transparency", b"icc_profile", b"exif", b"gamma", b"dpi"):
        check(Case(png(RGB, 8, 2, [(b"tEXt", name + b"\0no")]), RGB))
        check(Case(png(few(2)[0], 2, 3, [(b"PLTE", bytes(12)), (b"tEXt", name + b"\0no")]), np.zeros_like(RGB)))


def test_a_broken_list_of_further_pictures_is_no_harm() -> None:
    """Pillow follows it when it opens the file, and raises what the bytes lead it to."""
    (case,) = ROWS["JPEG with further images (MPF)"]
    at = case.data.index(b"MPF\0") + 4
    for n in range(at, at + 60):
        data = bytearray(case.data)
        data[n] ^= 0xFF
        assert decode(bytes(data)).shape == RGB.shape


FILES = [case.data for cases in ROWS.values() for case in cases]
FILES += [
    saved(RGB, "PNG", icc_profile=endless_profile(3)),
    saved(RGB, "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\2"),
]
#: Where files keep what decides: a change there hits more often than one anywhere.
_MARKS = re.compile(rb"IHDR|PLTE|tRNS|eXIf|iCCP|IDAT|acTL|Exif|ICC_PROFILE|MPF|Adobe|\xff[\xc0-\xcf\xda-\xef]|VP8|ANMF")


@settings(max_examples=600)
@given(st.data())
def test_a_changed_file_is_shown_or_refused_and_the_readers_agree(data: st.DataObject) -> None:
    changed = bytearray(data.draw(st.sampled_from(FILES)))
    marks = [found.start() for found in _MARKS.finditer(changed)] or [0]
    for _ in range(data.draw(st.integers(1, 3))):
        if data.draw(st.booleans()):
            at = data.draw(st.sampled_from(marks)) + data.draw(st.integers(-4, 24))
        else:
            at = data.draw(st.integers(0, len(changed)))
        at = min(max(at, 0), len(changed))
        gone = data.draw(st.integers(0, 8))
        changed[at : at + gone] = data.draw(st.binary(max_size=8))
    found: dict[str, tuple[int, int] | None] = {}
    for read in (decode, glance, header):
        try:
            seen = read(bytes(changed))
        except ImageRefused:
            found[read.__name__] = None
        else:
            found[read.__name__] = seen.shape[1::-1] if isinstance(seen, np.ndarray) else seen[-2:]
    for reader in ("decode", "glance"):
        assert found[reader] in (None, found["header"])
