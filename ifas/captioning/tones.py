"""Light, colour and sharpness of a picture, each as one float."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.view import blurred

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ifas.captioning.view import View

    Floats = npt.NDArray[np.float32]


def brightness(view: View) -> float:
    """Mean grey value, 0..1."""
    return float(view.grey.mean())


def black_level(view: View) -> float:
    """Second percentile of the grey values, 0..1: paper and lit glass never get really black."""
    import numpy as np

    return float(np.percentile(view.grey, 2))


def contrast(view: View) -> float:
    """Distance from the 2nd to the 98th percentile of the grey values, 0..1."""
    import numpy as np

    low, high = np.percentile(view.grey, (2, 98))
    return float(high - low)


def gamut(view: View) -> float:
    """Spread of the colours: root of the summed variances of the two colour differences."""
    import cv2

    deviations = cv2.meanStdDev(view.opponent)[1]
    return float((deviations**2).sum() ** 0.5)


def face_sharpness(view: View) -> float:
    """Log10 variance of the Laplacian inside the face box."""
    x0, y0, x1, y1 = view.face
    return _log_variance(_laplacian(view)[y0:y1, x0:x1])


def surround_sharpness(view: View) -> float:
    """Log10 variance of the Laplacian outside the face box, clothes left out (the upper three quarters)."""
    import numpy as np

    outside = np.ones(view.grey.shape, dtype=bool)
    x0, y0, x1, y1 = view.face
    outside[y0:y1, x0:x1] = False
    outside[int(0.75 * len(outside)) :] = False
    return _log_variance(_laplacian(view)[outside]) if outside.any() else face_sharpness(view)


def specular_share(view: View) -> float:
    """Share of the face box that is a white highlight: nearly full value, hardly any colour."""
    x0, y0, x1, y1 = view.face
    return float(_highlights(view.rgb[y0:y1, x0:x1]).mean())


def glare_share(view: View) -> float:
    """Share of the whole picture that is a white highlight."""
    return float(_highlights(view.rgb).mean())


def gloss(view: View) -> float:
    """How far small spots of the inner face (a twentieth of its width) stand above what surrounds them: the 99.5th
    percentile. Hard plastic and rubber throw smaller, sharper highlights than skin."""
    import numpy as np

    x0, _, x1, _ = view.face
    spots = view.grey - blurred(view.grey, max(1.0, (x1 - x0) / 20))
    return float(np.percentile(spots[_inner(view)], 99.5))


def neck_step(view: View) -> float:
    """How much the colour of the face differs from that of the strip below its box, brightness taken out.

    Only the difference is kept, never either colour. 0 without a face box, or where the picture ends before the neck.
    """
    import numpy as np

    x0, y0, x1, y1 = view.face
    third = (x1 - x0) // 3
    neck = np.s_[y1 + 2 : y1 + 2 + (y1 - y0) // 8, x0 + third : x1 - third]
    if not view.boxed or view.grey[neck].size < 20:
        return 0.0
    return float(np.hypot(*(_median_colour(view, neck) - _median_colour(view, _inner(view)))))


def skin_variation(view: View) -> float:
    """Spread of the colour inside the face, relative to its brightness, slow changes of light removed.

    Skin has lips, flush and shadow of several colours; a moulded or painted face is one even tone. Only the variation
    counts, never the colour itself.
    """
    import numpy as np

    inner = _inner(view)
    colour = blurred(view.opponent, 3.0)[inner] / np.maximum(blurred(view.grey, 3.0)[inner], 0.05)[..., None]
    return float(np.sqrt(colour.reshape(-1, 2).var(axis=0).sum()))


def skin_texture(view: View) -> float:
    """Median size of fine detail (0.8 to 2.5 px) in the face, relative to its brightness."""
    import numpy as np

    coarse = blurred(view.face_grey, 2.5)
    fine = blurred(view.face_grey, 0.8) - coarse
    return float(np.median(np.abs(fine) / np.maximum(coarse, 0.05)))


def _inner(view: View) -> tuple[slice, slice]:
    """The face box without a fifth at each side."""
    x0, y0, x1, y1 = view.face
    inset_x, inset_y = (x1 - x0) // 5, (y1 - y0) // 5
    return slice(y0 + inset_y, y1 - inset_y), slice(x0 + inset_x, x1 - inset_x)


def _median_colour(view: View, region: tuple[slice, slice]) -> Floats:
    import numpy as np

    colour = view.opponent[region] / np.maximum(view.grey[region], 0.05)[..., None]
    median: Floats = np.median(colour.reshape(-1, 2), axis=0)
    return median


def _laplacian(view: View) -> Floats:
    import cv2

    result: Floats = cv2.Laplacian(view.grey, cv2.CV_32F)
    return result


def _log_variance(values: Floats) -> float:
    import numpy as np

    return float(np.log10(values.var() + 1e-6))


def _highlights(rgb: Floats) -> npt.NDArray[np.bool_]:
    import numpy as np

    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    # Channel by channel: five times faster than a reduction over the last axis.
    top = np.maximum(np.maximum(red, green), blue)
    bottom = np.minimum(np.minimum(red, green), blue)
    return (top > 0.93) & (top - bottom < 0.2 * top)
