"""What several tests of the data room share."""

import numpy as np
import pytest
from skimage.data import astronaut

from ifas.faces.boxes import Box


@pytest.fixture(scope="session")
def portrait() -> tuple[np.ndarray, Box]:
    """A real face that scikit-image carries (NASA, public domain), uint8 RGB (300, 300, 3); its box, set by hand."""
    return astronaut()[:300, 70:370].copy(), (105.0, 65.0, 95.0, 125.0)
