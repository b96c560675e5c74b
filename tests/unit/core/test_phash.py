import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from ifas.core.imaging import decode, glance
from ifas.core.phash import HASH_FORMAT, confirmed, phash, words
from tests.conftest import SHARED
from tests.unit.data.pictures import picture


def distance(a: str, b: str) -> int:
    """Of the 64 bits that find candidates."""
    return (int(a[:16], 16) ^ int(b[:16], 16)).bit_count()


def same(a: str, b: str) -> bool:
    return bool(confirmed(words([a]), words([b]))[0])


def seen(data: bytes) -> str:
    return phash(glance(data)[0])


def cosine_transform(block: np.ndarray) -> np.ndarray:
    """DCT-II by its definition."""
    n = len(block)
    k, x = np.mgrid[0:n, 0:n]
    basis = np.cos(np.pi * (2 * x + 1) * k / (2 * n)) * np.where(k == 0, np.sqrt(1 / n), np.sqrt(2 / n))
    return basis @ block @ basis.T


def test_bits_are_those_of_the_definition() -> None:
    grey = np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)
    frequencies = cosine_transform(grey.astype(float))
    low, all_of = frequencies[1:9, 1:9].ravel(), frequencies[1:17, 1:17].ravel()
    clear = 0.2 * sum(abs(low)) / 64
    bits = [v > np.median(low) for v in low] + [v > clear for v in all_of] + [v < -clear for v in all_of]
    digits = f"{int(''.join(str(int(bit)) for bit in bits), 2):0144x}"
    assert phash(grey) == digits
    assert [int(word) for word in words([digits])[0]] == [int(digits[k : k + 16], 16) for k in range(0, 144, 16)]


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), quality=st.integers(50, 95), scale=st.floats(0.7, 1.6))
def test_compression_and_scale_move_few_bits(seed: int, quality: int, scale: float) -> None:
    original = picture(seed, 160, 120, "PNG")
    out = io.BytesIO()
    Image.fromarray(decode(original)).resize((int(160 * scale), int(120 * scale))).save(out, "JPEG", quality=quality)
    assert distance(seen(original), seen(out.getvalue())) <= 10
    assert same(seen(original), seen(out.getvalue()))


def test_other_pictures_are_far() -> None:
    hashes = [seen(picture(seed)) for seed in range(40)]
    far = [distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(far) > 10
    assert all(re.fullmatch(HASH_FORMAT, h) for h in hashes)


@pytest.mark.shared
def test_real_people_are_told_apart_and_their_copies_are_not() -> None:
    """Portraits of 400 people before the same studio, which look more alike than anything that is drawn."""
    files = sorted((SHARED / "portraits").glob("*.jpg"))
    hashes = words(seen(file.read_bytes()) for file in files)
    coarse = np.bitwise_count(hashes[:, None, 0] ^ hashes[None, :, 0])
    one, other = np.nonzero(np.triu(coarse <= 6, 1))
    assert len(one) >= 1, "the 64 bits alone would do"
    assert not confirmed(hashes[one], hashes[other]).any()
    for file, before in list(zip(files, hashes, strict=True))[::8]:
        image = Image.fromarray(decode(file.read_bytes()))
        for blur, scale, quality in ((0, 1, 50), (0, 0.5, 80), (0, 1.6, 90), (6, 0.7, 60)):
            out = io.BytesIO()
            size = (round(image.width * scale), round(image.height * scale))
            softened = image.filter(ImageFilter.GaussianBlur(blur)) if blur else image
            start = words([seen(saved(softened))])[0] if blur else before
            softened.resize(size).save(out, "JPEG", quality=quality)
            assert confirmed(start, words([seen(out.getvalue())])[0]), (file.name, blur, scale, quality)


def saved(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), side=st.integers(80, 900))
def test_a_jpeg_decoded_small_looks_the_same(seed: int, side: int) -> None:
    data = picture(seed, side, side * 3 // 4)
    grey, width, height = glance(data)
    rgb = decode(data)
    assert (height, width) == rgb.shape[:2]
    assert min(grey.shape) >= min(64, *rgb.shape[:2])
    whole = np.asarray(Image.fromarray(rgb).convert("L"))
    # Bits whose coefficient lies at the median may fall either way; 32 of 64 differ between strangers.
    assert distance(phash(grey), phash(whole)) <= 12
