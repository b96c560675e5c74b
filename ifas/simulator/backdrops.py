"""What is behind the subject: an office, a home, a street, a hall with a bright window. Linear radiance, no people."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ifas.simulator.arrays import F32
from ifas.simulator.canvas import Canvas, muted

Backdrop = Callable[[np.random.Generator, int], F32]
WARM, COOL = np.array([1.08, 1.0, 0.88], np.float32), np.array([0.92, 1.03, 1.0], np.float32)
WOOD, GREEN = np.array([0.16, 0.095, 0.05], np.float32), np.array([0.09, 0.16, 0.05], np.float32)


def _shelves(rng: np.random.Generator, c: Canvas, x: float, w: float) -> None:
    """Books and boxes on boards."""
    wood = WOOD * np.float32(rng.uniform(0.5, 2.5))
    c.box(x, 0, w, 1, wood * 0.4)
    y = float(rng.uniform(-0.1, 0.1))
    while y < 1:
        height, at = float(rng.uniform(0.16, 0.27)), x + 0.01
        while at < x + w - 0.02:
            width = float(rng.uniform(0.014, 0.05))
            if rng.random() < 0.12:
                at += width * 2
                continue
            tall = height * float(rng.uniform(0.55, 0.93))
            colour = muted(rng, 0.02, 0.5, 0.6)
            lean = float(rng.normal(0, 0.006))
            top, foot = y + height - tall, y + height
            corners = [(at + lean, top), (at + width + lean, top), (at + width, foot), (at, foot)]
            c.polygon(corners, colour, 0.05)
            if rng.random() < 0.6:
                band = top + tall * float(rng.uniform(0.1, 0.6))
                c.box(at + lean / 2, band, width, tall * 0.1, muted(rng, 0.1, 0.6), 0.02)
            at += width + float(rng.exponential(0.003))
        c.box(x, y + height, w, 0.018, wood, 0.15)
        y += height + 0.018


def _picture(rng: np.random.Generator, c: Canvas, x: float, y: float, w: float, h: float) -> None:
    """A framed picture, poster or pin board."""
    c.box(x, y, w, h, muted(rng, 0.01, 0.45))
    inset = min(float(rng.uniform(0.008, 0.02)), 0.15 * min(w, h))
    c.box(x + inset, y + inset, w - 2 * inset, h - 2 * inset, muted(rng, 0.1, 0.7))
    c.clutter(x + 2 * inset, y + 2 * inset, w - 4 * inset, h - 4 * inset, int(rng.integers(4, 22)), 0.03, 0.7)


def _window(rng: np.random.Generator, c: Canvas, x: float, y: float, w: float, h: float, glow: float) -> None:
    """A window with bars or a blind; what is outside is bright."""
    frame = muted(rng, 0.15, 0.7, 0.1)
    c.box(x - 0.015, y - 0.015, w + 0.03, h + 0.03, frame)
    c.box(x, y, w, h, np.array([0.9, 1.0, 1.08], np.float32) * np.float32(glow), 0.1)
    c.clutter(x, y + h * 0.5, w, h * 0.5, 14, 0.2 * glow, 0.8 * glow)
    if rng.random() < 0.4:
        step = float(rng.uniform(0.02, 0.04))
        for at in np.arange(y, y + h, step):
            c.box(x, float(at), w, step * 0.6, frame * np.float32(rng.uniform(0.8, 1.1)), 0.03)
    else:
        c.box(x + w / 2 - 0.008, y, 0.016, h, frame)
        c.box(x, y + h * float(rng.uniform(0.3, 0.6)), w, 0.014, frame)


def _wall_things(rng: np.random.Generator, c: Canvas, count: int) -> None:
    for _ in range(count):
        x, y = float(rng.uniform(-0.15, 0.9)), float(rng.uniform(-0.1, 0.55))
        _picture(rng, c, x, y, float(rng.uniform(0.12, 0.4)), float(rng.uniform(0.12, 0.4)))


def _plant(rng: np.random.Generator, c: Canvas) -> None:
    x, y, r = float(rng.choice((rng.uniform(0, 0.25), rng.uniform(0.75, 1)))), float(rng.uniform(0.3, 0.7)), 0.2
    c.polygon([(x - 0.08, y + 0.15), (x + 0.08, y + 0.15), (x + 0.06, 1), (x - 0.06, 1)], muted(rng, 0.1, 0.5))
    c.leaves(x, y, r * float(rng.uniform(0.7, 1.2)), 90, GREEN * np.float32(rng.uniform(0.6, 1.8)))


def _post(rng: np.random.Generator, c: Canvas) -> None:
    """Often, something upright at the side of the frame: a door frame, a pillar, the edge of a cupboard."""
    for side in (0, 1):
        if rng.random() < 0.3:
            w = float(rng.uniform(0.03, 0.16))
            x = -0.02 if side == 0 else 1.02 - w
            lean = float(rng.normal(0, 0.02))
            corners = [(x + lean, -0.05), (x + w + lean, -0.05), (x + w - lean, 1.05), (x - lean, 1.05)]
            c.polygon(corners, muted(rng, 0.01, 0.35, 0.3), 0.08)


def office(rng: np.random.Generator, n: int) -> F32:
    """Shelves, pictures, a window with a blind, a door, a plant before a wall."""
    c = Canvas(rng, n, muted(rng, 0.08, 0.7, 0.2) * WARM)
    kind = rng.random()
    if kind < 0.45:
        x = float(rng.uniform(-0.5, 0.6))
        _shelves(rng, c, x, float(rng.uniform(0.5, 1.2)))
    elif kind < 0.7:
        _window(
            rng,
            c,
            float(rng.uniform(-0.2, 0.7)),
            float(rng.uniform(-0.3, 0.1)),
            0.5,
            0.6,
            float(rng.uniform(0.35, 0.95)),
        )
    if rng.random() < 0.25:
        x = float(rng.uniform(-0.1, 0.8))
        c.box(x - 0.02, 0.0, 0.44, 1, muted(rng, 0.03, 0.5, 0.2))
        c.box(x, 0.02, 0.4, 1, muted(rng, 0.03, 0.6, 0.3), 0.1)
    _wall_things(rng, c, int(rng.integers(0, 4)))
    if rng.random() < 0.5:
        c.clutter(0.0, 0.62, 1.0, 0.38, int(rng.integers(10, 40)), 0.02, 0.5)
    if rng.random() < 0.4:
        _plant(rng, c)
    _post(rng, c)
    return c.paint((0.3, 2.8))


def home(rng: np.random.Generator, n: int) -> F32:
    """A living room or kitchen: patterned wall or tiles, curtain, lamp, sofa, shelves, pictures."""
    wall = muted(rng, 0.08, 0.7, 0.4) * WARM
    c = Canvas(rng, n, wall)
    pattern = rng.random()
    if pattern < 0.3:  # striped wallpaper
        step = float(rng.uniform(0.03, 0.09))
        for x in np.arange(0, 1, step):
            c.box(float(x), 0, step * 0.5, 1, wall * np.float32(rng.uniform(0.7, 0.85)), 0.04)
    elif pattern < 0.5:  # tiles
        step = float(rng.uniform(0.07, 0.14))
        for x in np.arange(0, 1, step):
            for y in np.arange(0, 0.7, step):
                c.box(
                    float(x) + 0.003,
                    float(y) + 0.003,
                    step - 0.006,
                    step - 0.006,
                    wall * np.float32(rng.uniform(1.0, 1.3)),
                    0.04,
                )
    if rng.random() < 0.45:  # curtain beside a window
        left = rng.random() < 0.5
        x0 = float(rng.uniform(-0.1, 0.1)) if left else float(rng.uniform(0.6, 0.8))
        _window(rng, c, x0 - 0.1, -0.1, 0.45, 0.8, float(rng.uniform(0.35, 0.95)))
        cloth = muted(rng, 0.05, 0.6, 0.6)
        for k in range(11):
            fold = cloth * np.float32(0.65 + 0.5 * (k % 2) + 0.15 * rng.random())
            c.box(x0 + 0.027 * k, -0.02, 0.028, 1.1, fold, 0.05)
    _wall_things(rng, c, int(rng.integers(0, 4)))
    if rng.random() < 0.35:
        _shelves(rng, c, float(rng.choice((-0.25, 0.7))), 0.55)
    if rng.random() < 0.4:  # lamp
        x, y = float(rng.uniform(0, 1)), float(rng.uniform(0.02, 0.4))
        c.box(x - 0.008, y, 0.016, 1, muted(rng, 0.02, 0.3))
        shade = [(x - 0.07, y), (x + 0.07, y), (x + 0.11, y + 0.16), (x - 0.11, y + 0.16)]
        c.polygon(shade, np.array([1.4, 1.1, 0.7], np.float32) * np.float32(rng.uniform(0.35, 0.95)), 0.05)
    if rng.random() < 0.6:  # sofa or worktop
        y = float(rng.uniform(0.6, 0.8))
        c.box(-0.1, y, 1.2, 0.5, muted(rng, 0.03, 0.5, 0.5), 0.15)
        c.clutter(0.0, y - 0.12, 1.0, 0.2, int(rng.integers(3, 16)), 0.03, 0.6)
    if rng.random() < 0.4:
        _plant(rng, c)
    _post(rng, c)
    return c.paint((0.3, 2.8))


def street(rng: np.random.Generator, n: int) -> F32:
    """Sky, house fronts with windows and signs, trees, poles, parked cars, a wall of brick."""
    sky = np.array([0.62, 0.78, 1.0], np.float32) * np.float32(rng.uniform(0.5, 1.4))
    c = Canvas(rng, n, sky * rng.uniform(0.8, 1.05, 3).astype(np.float32))
    x = float(rng.uniform(-0.3, 0))
    while x < 1:
        width, roof = float(rng.uniform(0.2, 0.5)), float(rng.uniform(-0.3, 0.5))
        front = muted(rng, 0.06, 0.65, 0.5)
        c.box(x, roof, width, 1.5, front, 0.12)
        c.box(x - 0.01, roof, width + 0.02, 0.02, front * 0.6)
        step_x, step_y = rng.uniform(0.07, 0.13, 2)
        tall = float(rng.uniform(0.45, 0.75))
        pane, sill = muted(rng, 0.02, 0.2), front * np.float32(rng.uniform(0.5, 1.6))
        for i in np.arange(x + 0.03, x + width - 0.06, step_x):
            for j in np.arange(max(roof, -0.05) + 0.05, 1, step_y):
                w, h = step_x * 0.58, step_y * tall
                c.box(float(i) - 0.005, float(j) - 0.005, w + 0.01, h + 0.013, sill)
                c.box(float(i), float(j), w, h, pane * np.float32(rng.uniform(0.4, 3)), 0.3, 0.5)
                c.box(float(i) + w / 2 - 0.002, float(j), 0.004, h, sill)
        x += width + float(rng.choice((0.0, 0.0, 0.1)))
    for _ in range(int(rng.integers(0, 3))):
        x, y = float(rng.uniform(-0.1, 0.9)), float(rng.uniform(0.1, 0.7))
        _picture(rng, c, x, y, float(rng.uniform(0.1, 0.3)), float(rng.uniform(0.05, 0.14)))
    for _ in range(int(rng.integers(0, 3))):
        x, y, r = float(rng.uniform(0, 1)), float(rng.uniform(-0.05, 0.6)), float(rng.uniform(0.12, 0.3))
        c.polygon([(x - 0.02, y), (x + 0.02, y), (x + 0.03, 1.1), (x - 0.03, 1.1)], WOOD)
        c.leaves(x, y, r, 150, GREEN * np.float32(rng.uniform(0.6, 2.0)))
    if rng.random() < 0.4:
        x = float(rng.uniform(0, 1))
        c.box(x, -0.1, float(rng.uniform(0.01, 0.05)), 1.2, muted(rng, 0.02, 0.4))
    if rng.random() < 0.5:
        c.clutter(0.0, 0.7, 1.0, 0.3, int(rng.integers(8, 30)), 0.02, 0.6)
    _post(rng, c)
    return c.paint((0.3, 2.8))


def hall(rng: np.random.Generator, n: int) -> F32:
    """A tiled hall with a bright window or lit panels, a pillar, signs, a barrier."""
    wall = muted(rng, 0.06, 0.4, 0.3) * COOL
    c = Canvas(rng, n, wall * 0.6)
    wide, tall = float(rng.uniform(0.08, 0.2)), float(rng.uniform(0.06, 0.16))
    left, top = float(rng.uniform(-wide, 0)), float(rng.uniform(-tall, 0))
    for x in np.arange(left, 1, wide):
        for y in np.arange(top, 1, tall):
            c.box(
                float(x) + 0.002,
                float(y) + 0.002,
                wide - 0.004,
                tall - 0.004,
                wall * np.float32(rng.uniform(0.85, 1.15)),
                0.05,
                0.1,
            )
    for _ in range(int(rng.integers(0, 3))):
        w, h = float(rng.uniform(0.2, 0.45)), float(rng.uniform(0.2, 0.6))
        _window(
            rng, c, float(rng.uniform(-0.15, 0.95)), float(rng.uniform(-0.15, 0.3)), w, h, float(rng.uniform(0.25, 0.8))
        )
    for _ in range(int(rng.integers(0, 3))):
        x, y, w = float(rng.uniform(-0.05, 0.8)), float(rng.uniform(0, 0.4)), float(rng.uniform(0.12, 0.3))
        c.box(x, y, w, 0.1, muted(rng, 0.03, 0.5, 0.9), 0.03)
        for k in range(3):
            c.box(
                x + 0.02,
                y + 0.02 + 0.025 * k,
                (w - 0.04) * float(rng.uniform(0.4, 1)),
                0.012,
                muted(rng, 0.5, 0.9, 0.1),
            )
    if rng.random() < 0.4:
        c.box(
            float(rng.uniform(-0.1, 0.9)),
            -0.1,
            float(rng.uniform(0.08, 0.2)),
            1.2,
            wall * np.float32(rng.uniform(0.5, 1.8)),
            0.1,
        )
    if rng.random() < 0.4:
        y = float(rng.uniform(0.6, 0.8))
        for k in range(3):
            c.box(0, y + 0.07 * k, 1, 0.015, muted(rng, 0.1, 0.6, 0.1))
    _post(rng, c)
    return c.paint((0.3, 2.8))
