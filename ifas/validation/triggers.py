"""Planted triggers: the same small patch in several images of one class and in none of the others.

A sticker pasted into a few training images of one class is the classic backdoor (BadNets, arXiv 1708.06733). Patches
are searched at every pixel position of the image as stored. Images are not scaled, so that a pasted patch is the same
in all of them but for JPEG noise. A patch is described by its grey levels, normalised for mean and spread and rounded.
Flat patches and plain edges, as black bars and borders have them, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ifas.validation.section import Section, Shown, table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: Side of a patch in pixels.
PATCH = 8
#: Grey-level spread below which a patch is flat.
FLAT = 14.0
#: Share of a patch's variance that two separable patterns must leave unexplained.
DETAIL = 0.05
#: Least number of subjects of one class with the patch: images of one person often share a background.
LEAST_SUBJECTS = 3
#: Largest number of images of other classes with the patch, as a share of all images with it.
ELSEWHERE = 0.02
#: A patch in a larger share of a class comes from the way this class is captured; it is not a planted minority.
MOST_SHARE = 0.5
SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A shared patch: the class, the rows that hold it, and the row's (x, y) of the patch in pixels."""

    kind: str
    rows: tuple[int, ...]
    places: tuple[tuple[int, int], ...]


def patch_keys(grey_HW: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Hash of each distinct textured PATCH x PATCH patch of an image, and its place y * W + x."""
    import numpy as np
    from numpy.lib.stride_tricks import sliding_window_view

    if min(grey_HW.shape) < PATCH:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    grey = grey_HW.astype(np.float32)
    windows = sliding_window_view(grey, (PATCH, PATCH))
    h, w = windows.shape[:2]
    mean, spread = _moments(grey)
    ys, xs = np.nonzero(spread > FLAT)
    if not len(ys):
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    # If all rows or all columns are alike, the patch is an edge or a bar: texture varies in both directions.
    across = np.abs(np.diff(grey, axis=1))[:, : w + PATCH - 2]
    down = np.abs(np.diff(grey, axis=0))[: h + PATCH - 2, :]
    busy = (_box(across, PATCH, PATCH - 1)[:h, :w] > FLAT / 2) & (_box(down, PATCH - 1, PATCH)[:h, :w] > FLAT / 2)
    keep = busy[ys, xs]
    ys, xs = ys[keep], xs[keep]
    patches = windows[ys, xs].reshape(len(ys), PATCH * PATCH)
    z = (patches - mean[ys, xs, None]) / spread[ys, xs, None]
    levels = (np.clip(np.rint(z), -2, 2) + 2).astype(np.uint64)
    odd = np.random.default_rng(7).integers(1, 2**63, PATCH * PATCH, dtype=np.uint64) | np.uint64(1)
    keys = (levels * odd).sum(axis=1, dtype=np.uint64)
    keys, first = np.unique(keys, return_index=True)
    return keys, (ys * grey.shape[1] + xs)[first]


def find(pictures: Sequence[npt.NDArray[np.uint8]], kinds: Sequence[str], subjects: Sequence[str]) -> list[Trigger]:
    """Patches that images of LEAST_SUBJECTS or more subjects of one class share, and hardly any other class has.

    Patches of overlapping places that the same images share are one trigger.

    Args:
        pictures: uint8 (H, W) grey, as stored.
        kinds: class of each.
        subjects: person of each.
    """
    import numpy as np

    found = [patch_keys(picture) for picture in pictures]
    if not found or not sum(len(keys) for keys, _ in found):
        return []
    keys = np.concatenate([keys for keys, _ in found])
    places = np.concatenate([place for _, place in found])
    owner = np.repeat(np.arange(len(found)), [len(k) for k, _ in found])
    order = np.argsort(keys, kind="stable")
    keys, places, owner = keys[order], places[order], owner[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    sizes = np.diff(np.r_[starts, len(keys)])
    kind = np.asarray(kinds)
    total = {name: int((kind == name).sum()) for name in set(kinds)}
    groups: dict[tuple[str, tuple[int, ...]], tuple[tuple[int, int], ...]] = {}
    # Images of several classes share this patch. Patches that overlap it are not triggers either, even if one at its
    # border, with some background in it, happens to occur in one class only.
    common: dict[int, list[tuple[int, int]]] = {}
    for start, size in zip(starts[sizes >= LEAST_SUBJECTS], sizes[sizes >= LEAST_SUBJECTS], strict=True):
        mine = owner[start : start + size]
        names, counts = np.unique(kind[mine], return_counts=True)
        top = str(names[counts.argmax()])
        inside = mine[kind[mine] == top]
        if size - len(inside) > ELSEWHERE * size:
            for i, p in zip(mine.tolist(), places[start : start + size].tolist(), strict=True):
                common.setdefault(i, []).append(divmod(p, pictures[i].shape[1])[::-1])
            continue
        if len(inside) > MOST_SHARE * total[top]:
            continue
        if len({subjects[i] for i in inside}) < LEAST_SUBJECTS:
            continue
        place = int(places[start])
        if not _detailed(pictures[int(mine[0])], place):
            continue
        where = places[start : start + size][kind[mine] == top]
        spots = tuple(
            (int(p % pictures[i].shape[1]), int(p // pictures[i].shape[1])) for i, p in zip(inside, where, strict=True)
        )
        groups.setdefault((top, tuple(int(i) for i in inside)), spots)
    return _merged({key: spots for key, spots in groups.items() if not _beside(key[1], spots, common)})


def _beside(
    rows: Sequence[int], spots: Sequence[tuple[int, int]], common: Mapping[int, Sequence[tuple[int, int]]]
) -> bool:
    """Whether in most rows a patch that several classes share overlaps with this one."""
    near = [
        any(abs(x - u) < PATCH and abs(y - v) < PATCH for u, v in common.get(row, ()))
        for row, (x, y) in zip(rows, spots, strict=True)
    ]
    return sum(near) > len(near) / 2


def _detailed(grey_HW: npt.NDArray[np.uint8], place: int) -> bool:
    """Whether a patch is more than an edge, a bar, or a corner where two of them meet: those have rank 2."""
    import numpy as np

    y, x = divmod(place, grey_HW.shape[1])
    patch = grey_HW[y : y + PATCH, x : x + PATCH].astype(np.float64)
    strength = np.linalg.svd(patch - patch.mean(), compute_uv=False) ** 2
    return bool(strength[2:].sum() > DETAIL * strength.sum())


def _merged(groups: dict[tuple[str, tuple[int, ...]], tuple[tuple[int, int], ...]]) -> list[Trigger]:
    """The largest first. A group is the same trigger as an earlier one that has most of its images."""
    out: list[Trigger] = []
    for (kind, rows), places in sorted(groups.items(), key=lambda item: (-len(item[0][1]), item[0])):
        if any(one.kind == kind and len(set(one.rows) & set(rows)) > len(rows) / 2 for one in out):
            continue
        out.append(Trigger(kind=kind, rows=rows, places=places))
    return out


def _box(x: npt.NDArray[np.float32], h: int, w: int) -> npt.NDArray[np.float64]:
    """Mean over every h x w window."""
    import numpy as np

    total = np.pad(np.cumsum(np.cumsum(x, axis=0, dtype=np.float64), axis=1), ((1, 0), (1, 0)))
    out: npt.NDArray[np.float64] = (total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]) / (h * w)
    return out


def _moments(grey: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    import numpy as np

    mean = _box(grey, PATCH, PATCH)
    return mean, np.sqrt(np.maximum(_box(grey**2, PATCH, PATCH) - mean**2, 0))


def section(found: Sequence[Trigger], ids: Sequence[str], images: int) -> Section:
    """The report of these triggers; `ids` are the sample ids of the images searched."""
    shown = [
        Shown(id=ids[row], value=f"{one.kind}: shared patch at {x}, {y}")
        for one in found[:3]
        for row, (x, y) in list(zip(one.rows, one.places, strict=True))[:SHOWN]
    ]
    return Section(
        id="triggers",
        title="Patches that only one class shares",
        about=f"Textured patches of {PATCH} x {PATCH} pixels that images of {LEAST_SUBJECTS} or more people of one "
        f"class share and hardly any other class has, at any position, in {images} training images. A planted trigger "
        "looks like this; so does a watermark or a logo of one capture set-up. This is a heuristic: a trigger that is "
        "blended, scaled or recompressed hard is not found.",
        head=("class", "images", "first sample", "x, y"),
        rows=table(
            (t.kind, len(t.rows), ids[t.rows[0]][:12], f"{t.places[0][0]}, {t.places[0][1]}") for t in found[:20]
        ),
        flags=tuple(f"{len(t.rows)} images of class {t.kind} share a patch that no other class has" for t in found[:5]),
        pictures=tuple(shown),
        facts={"found": len(found), "images": images, "largest": len(found[0].rows) if found else 0},
    )
