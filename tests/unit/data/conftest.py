"""What several tests of the data room share, since it takes long to make."""

import numpy as np
import pytest

from benchmarks.clips import portraits
from ifas.data.video.boxes import Box


@pytest.fixture(scope="session")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, Box]:
    """A rendered bona fide picture, uint8 RGB, and where its face is."""
    return portraits(tmp_path_factory.mktemp("faces"), 1)[0]
