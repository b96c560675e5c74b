"""Cuts a person out of a portrait, so that they can stand before other backdrops.

GrabCut (Rother, Kolmogorov and Blake, 2004) of the scaled portrait, which starts from where head and shoulders are in a
portrait. Hair comes out plain; what of a dark suit is lost before a dark background leaves narrower shoulders.
"""

from __future__ import annotations

import cv2
import numpy as np

from ifas.simulator.arrays import F32, U8
from ifas.simulator.figure import Box

#: The longer side at which the person is cut out, and rounds of GrabCut.
SIDE, ROUNDS = 192, 4
#: Blur of the cut's edge, pixels at SIDE.
SOFT = 1.0


def cut_out(portrait: U8, face: Box) -> F32:
    """How much of each pixel is the person: (H, W), 0 to 1.

    Args:
        portrait: RGB (H, W, 3), head and shoulders.
        face: its box, as shares of width and height.
    """
    rows, columns = portrait.shape[:2]
    scale = SIDE / max(rows, columns)
    size = (max(8, round(columns * scale)), max(8, round(rows * scale)))
    small = cv2.resize(portrait, size, interpolation=cv2.INTER_AREA)
    mask = _guess(size, face)
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small, mask, None, *models, ROUNDS, cv2.GC_INIT_WITH_MASK)
    person = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    _, labels, areas, _ = cv2.connectedComponentsWithStats(person)
    person = (labels == 1 + areas[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
    # The background's colour goes over into the outermost pixels of hair.
    soft = cv2.GaussianBlur(cv2.erode(person, np.ones((2, 2), np.uint8)).astype(np.float32), (0, 0), SOFT)
    return np.asarray(cv2.resize(soft, (columns, rows), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _guess(size: tuple[int, int], face: Box) -> U8:
    """What GrabCut starts from: the inner face and the chest are the person, the upper edges are not."""
    (w, h), (x, y, across, down) = size, face
    mask = np.full((h, w), cv2.GC_PR_BGD, np.uint8)
    middle = (round((x + across / 2) * w), round((y + 0.45 * down) * h))
    neck = round(min(0.97, y + 0.97 * down) * h)
    cv2.ellipse(mask, middle, (round(0.62 * across * w), round(0.72 * down * h)), 0, 0, 360, cv2.GC_PR_FGD, -1)
    mask[min(h - 1, round((y + 1.18 * down) * h)) :, round(0.06 * w) : round(0.94 * w)] = cv2.GC_PR_FGD
    edge = max(2, w // 40)
    mask[:edge][mask[:edge] != cv2.GC_PR_FGD] = cv2.GC_BGD
    mask[: round(0.55 * h), :edge] = mask[: round(0.55 * h), -edge:] = cv2.GC_BGD
    cv2.ellipse(mask, middle, (round(0.30 * across * w), round(0.40 * down * h)), 0, 0, 360, cv2.GC_FGD, -1)
    mask[neck:, round((x + 0.2 * across) * w) : round((x + 0.8 * across) * w)] = cv2.GC_FGD
    return mask
