"""What a medium leaves in a picture beyond what a caption says: numbers that only the tuned captioner reads.

A pixel grid and a halftone leave colour where skin and cloth have none; a sheet or a device shows at the rim of the
picture; ink and glass move tones and colours. One number alone tells little. None holds the colour of a face.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.spectrum import DOTS, PROFILE_BINS, WAVES, fine_over_coarse, peak, radial_profile, tile_spectra
from ifas.captioning.view import blurred

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ifas.captioning.edges import Edge
    from ifas.captioning.view import View

    Floats = npt.NDArray[np.float32]

SIDES = ("left", "right", "above", "below")
#: Lowest rings of the colour spectra, left out: they follow what the picture shows.
_COARSE = 3
#: Width of a strip along the rim of the picture, as a share of its side.
_STRIP = 16

#: Numbers of `traces`: profile, edges, colour in the face, colour patterns and profile, spots, tones, saturation, rim.
TRACES = PROFILE_BINS + len(SIDES) + 1 + 3 + 6 + (PROFILE_BINS - _COARSE) + 4 + 5 + 3 + 8


def traces(view: View, edges: list[Edge], spectra: Floats) -> Floats:
    """All of them, float32 (TRACES,).

    Args:
        edges: straight lines outside the face.
        spectra: of the tiles' grey values.
    """
    import numpy as np

    colour = view.opponent - blurred(view.opponent, 3.0)
    first, second = (tile_spectra(np.ascontiguousarray(colour[..., i])) for i in (0, 1))
    patterns = [peak(one, ring) for one in (first, second) for ring in (WAVES, DOTS)]
    patterns += [fine_over_coarse(one) for one in (first, second)]
    numbers = [
        *radial_profile(spectra),
        *_sides(edges),
        *_colour_in_the_face(view, colour),
        *patterns,
        *radial_profile(first)[_COARSE:],
        *_spots(view),
        *_tones(view),
        *_saturation(view),
        *_rim(view),
    ]
    return np.array(numbers, dtype=np.float32)


def _sides(edges: list[Edge]) -> list[float]:
    """Chance of the likeliest edge on each side of the face, and their sum."""
    best = dict.fromkeys(SIDES, 0.0)
    for edge in edges:
        best[edge.side] = max(best[edge.side], edge.chance)
    return [*best.values(), sum(best.values())]


def _colour_in_the_face(view: View, colour: Floats) -> list[float]:
    """How much of the face's fine detail is colour (two logarithms), and its detail against the picture's."""
    import numpy as np

    x0, y0, x1, y1 = view.face
    face, whole = float(view.detail[y0:y1, x0:x1].std()) + 1e-4, float(view.detail.std()) + 1e-4
    shares = colour[y0:y1, x0:x1].std(axis=(0, 1)) / face
    return [*np.log(shares + 1e-3), float(np.log(face / whole))]


def _spots(view: View) -> list[float]:
    """Darkest, dark, bright and brightest small spots of the inner face against what surrounds them."""
    import numpy as np

    x0, y0, x1, y1 = view.face
    inset_x, inset_y = (x1 - x0) // 5, (y1 - y0) // 5
    spots = view.grey - blurred(view.grey, max(1.0, (x1 - x0) / 20))
    return [
        float(v)
        for v in np.percentile(spots[y0 + inset_y : y1 - inset_y, x0 + inset_x : x1 - inset_x], (1, 10, 90, 98))
    ]


def _tones(view: View) -> list[float]:
    """Where quarters and tenths of the grey values lie between the darkest and the brightest."""
    import numpy as np

    low, *levels, high = np.percentile(view.grey, (1, 10, 25, 50, 75, 90, 99))
    return [float((level - low) / max(high - low, 0.05)) for level in levels]


def _saturation(view: View) -> list[float]:
    """Lowest, middle and highest saturation of the picture, 0 to 1: ink reaches fewer colours, a display more."""
    import numpy as np

    top, bottom = view.rgb.max(axis=2), view.rgb.min(axis=2)
    return [float(v) for v in np.percentile((top - bottom) / np.maximum(top, 0.05), (5, 50, 95))]


def _rim(view: View) -> list[float]:
    """Strips along the four sides of the picture against the whole: level, detail, evenness and colour, the lowest and
    the highest of each."""
    import numpy as np

    height, width = view.grey.shape
    high, wide = max(1, height // _STRIP), max(1, width // _STRIP)
    every = slice(None)
    strips = (
        (every, slice(wide)),
        (every, slice(-wide, None)),
        (slice(high), every),
        (slice(-high, None), every),
    )
    middle, detail = float(np.median(view.grey)), float(np.log(view.detail.std() + 1e-3))
    numbers: list[float] = []
    for values in (
        [float(np.median(view.grey[s])) - middle for s in strips],
        [float(np.log(view.detail[s].std() + 1e-3)) - detail for s in strips],
        [float(view.grey[s].std()) for s in strips],
        [_tint(view, s) for s in strips],
    ):
        numbers += [min(values), max(values)]
    return numbers


def _tint(view: View, strip: tuple[slice, slice]) -> float:
    import numpy as np

    colour = view.opponent[strip] / np.maximum(view.grey[strip], 0.05)[..., None]
    return float(np.abs(np.median(colour.reshape(-1, 2), axis=0)).sum())
