"""Is there anything to see in an image? A model gives a score to a flat colour, a gradient or noise, too.

Four figures decide. They are measured on the luminance of a coarse grid of cells, so that compression and sensor noise
hardly count. docs/pictures.md has their values for real images.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from ifas.core.errors import ImageWithoutDetail

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: Cells along the shorter side.
FINE, COARSE = 32, 16
#: Along the longer side, at most LONGEST times as many. Without a limit, 32 x 1,000,000 pixels would have 32 million.
LONGEST = 8


class Detail(NamedTuple):
    """How much there is to see in an image. A gradient is a polynomial of degree 4 in x and y, fitted to the cells.

    contrast: standard deviation from that gradient, in levels of 0 to 255; near 0 for a flat colour.
    structure: the part of `contrast` that neighbouring cells share, divided by the standard deviation of all cells;
        near 0 for a gradient.
    fine: correlation of neighbouring cells' deviations from the gradient; near 0 for noise.
    coarse: correlation of neighbouring cells of twice the size; near 0 also for noise that compression made coarser.
    """

    contrast: float
    structure: float
    fine: float
    coarse: float


#: An image with a smaller figure is refused; docs/pictures.md says how far away real images are.
LOWEST = Detail(contrast=1.0, structure=0.17, fine=0.1, coarse=0.22)


def measure(image: npt.NDArray[np.uint8]) -> Detail:
    """The figures of an RGB image (H, W, 3)."""
    grey = _cells(image, FINE)
    rest = grey - _gradient(grey)
    contrast, spread, fine = float(rest.std()), float(grey.std()), _likeness(rest)
    structure = contrast * max(fine, 0.0) ** 0.5 / spread if spread else 0.0
    coarse = _cells(image, COARSE)
    return Detail(contrast, structure, fine, _likeness(coarse - coarse.mean()))


def check(image: npt.NDArray[np.uint8]) -> None:
    """Refuses an RGB image (H, W, 3) that shows a flat colour, a gradient or noise.

    Raises:
        ImageWithoutDetail: the message says which of the three it is.
    """
    found = measure(image)
    if found.contrast < LOWEST.contrast:
        seen = "a flat colour or a gradient"
    elif found.fine < LOWEST.fine or found.coarse < LOWEST.coarse:
        seen = "noise"
    elif found.structure < LOWEST.structure:
        seen = "a flat colour or a gradient"
    else:
        return
    raise ImageWithoutDetail(f"image shows nothing but {seen}", "send a photograph of a face")


def _cells(image: npt.NDArray[np.uint8], cells: int) -> npt.NDArray[np.float64]:
    """Mean luminance (Rec. 601) of cells that are as nearly square as whole pixels and LONGEST allow."""
    import numpy as np

    height, width, _ = image.shape
    side = min(height, width) / min(cells, height, width)
    rows, columns = (np.linspace(0, n, min(round(n / side), LONGEST * cells) + 1).astype(int) for n in (height, width))
    bands = (image[top:end].reshape(end - top, -1).sum(axis=0, dtype=np.uint32) for top, end in pairwise(rows))
    sums = np.stack([np.add.reduceat(band.reshape(width, 3), columns[:-1], axis=0) for band in bands])
    grey: npt.NDArray[np.float64] = sums @ np.array([0.299, 0.587, 0.114]) / np.outer(np.diff(rows), np.diff(columns))
    return grey


def _gradient(grey: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    basis = _basis(*grey.shape)
    fitted: npt.NDArray[np.float64] = (basis @ (basis.T @ grey.ravel())).reshape(grey.shape)
    return fitted


@lru_cache(maxsize=16)
def _basis(rows: int, columns: int) -> npt.NDArray[np.float64]:
    """Orthonormal polynomials on the grid, (cells, 15)."""
    import numpy as np

    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    powers = [x**i * y**j for i in range(5) for j in range(5 - i)]
    basis, _ = np.linalg.qr(np.stack(powers, -1).reshape(rows * columns, -1))
    return basis


def _likeness(deviations: npt.NDArray[np.float64]) -> float:
    """Correlation of neighbours, the smaller one of the two directions."""
    power = float((deviations * deviations).mean())
    if not power:
        return 0.0
    across, down = deviations[:, 1:] * deviations[:, :-1], deviations[1:] * deviations[:-1]
    return float(min(across.mean(), down.mean())) / power
