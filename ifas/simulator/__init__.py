"""The built-in capture simulator: synthetic people, and print, replay and mask attacks, before one simulated camera.

Offline and deterministic. A head comes from CC0 geometry (`heads`), is painted (`skin`), lit (`light`) and drawn
(`raster`, `figure`); attacks put it on paper (`prints`), on a display (`displays`) or under a shell (`masks`); a
domain's camera (`domains`, `camera`) takes all pictures alike. `dataset.make_demo` writes the data set.

This is the room's door: the rest of `ifas` imports nothing else of it, which import-linter checks. It stays light:
numba and OpenCV are imported when pictures are made.
"""

from ifas.simulator.contact import check_sheet, contact_sheet
from ifas.simulator.dataset import DemoSummary, check_faces, make_demo

__all__ = ["DemoSummary", "check_faces", "check_sheet", "contact_sheet", "make_demo"]
