"""Staged portraits: what is behind a person tells nothing about the class."""

from __future__ import annotations

import numpy as np

from ifas.simulator.arrays import F32
from ifas.simulator.camera import digital_photo
from ifas.simulator.cast import OWN_BACKDROP, PORTRAIT_FACE, PortraitCast, RenderedCast
from ifas.simulator.domains import PHOTO_LIGHT
from ifas.simulator.framing import draw_framing
from ifas.simulator.light import draw_light
from ifas.simulator.matte import cut_out

SIZE = 512


def plain(level: tuple[float, float, float]) -> F32:
    """A studio: one colour, a little darker towards the foot."""
    shade = np.linspace(1.0, 0.7, SIZE, dtype=np.float32)[:, None, None]
    return np.broadcast_to(np.array(level, np.float32) * shade, (SIZE, SIZE, 3)).copy()


def shared(subject: int) -> float:
    """Intersection over union of a rendered person and what was cut out."""
    cast, rng = RenderedCast(7), np.random.default_rng(subject)
    framing, light = draw_framing(rng, share=(0.5, 0.56), yaw=0.1, pitch=(-0.05, 0.05)), draw_light(rng, PHOTO_LIGHT)
    before_blue, face = cast.live(subject, framing, light, plain((0.10, 0.22, 0.30)), rng)
    before_red, _ = cast.live(subject, framing, light, plain((0.9, 0.1, 0.1)), rng)
    truth = np.abs(before_blue - before_red).max(-1) < 0.01
    found = cut_out(digital_photo(before_blue, -0.2, 0.5), face)
    assert found.shape == truth.shape
    assert 0 <= found.min() <= found.max() <= 1
    person = found > 0.5
    return float((person & truth).sum() / (person | truth).sum())


def test_people_are_cut_out() -> None:
    found = sorted(shared(subject) for subject in range(6))
    assert found[2] > 0.85
    # Of clothes as dark as the background, shoulders may be lost; a head is not.
    assert found[0] > 0.6


def test_a_picture_without_a_person_is_no_error() -> None:
    for level in (0, 128, 255):
        assert np.isfinite(cut_out(np.full((40, 30, 3), level, np.uint8), PORTRAIT_FACE)).all()


def test_both_classes_keep_their_background_as_often() -> None:
    portraits = [np.asarray(np.random.default_rng(n).integers(0, 255, (110, 90, 3)), np.uint8) for n in range(6)]
    cast, draws = PortraitCast(portraits), 300
    own = {"live": 0, "photo": 0}
    for n in range(draws):
        subject, start = n % len(portraits), np.random.default_rng(n)
        framing, light = draw_framing(start), draw_light(start, PHOTO_LIGHT)
        dark, bright = (
            cast.live(subject, framing, light, plain((level,) * 3), np.random.default_rng([n, 1]))[0]
            for level in (0.1, 0.9)
        )
        own["live"] += bool((dark == bright).all())
        photo = cast.photo(subject, np.random.default_rng([n, 2]))
        own["photo"] += bool((photo.pixels == portraits[subject]).all())
    spread = 3.5 * (OWN_BACKDROP * (1 - OWN_BACKDROP) / draws) ** 0.5
    for count in own.values():
        assert abs(count / draws - OWN_BACKDROP) < spread
