"""The built-in capture simulator: synthetic people, and print, replay and mask attacks, before one simulated camera.

Offline and deterministic. A head comes from CC0 geometry (`heads`), is painted (`skin`), lit (`light`) and drawn
(`raster`, `figure`); attacks put it on paper (`prints`), on a display (`displays`) or under a shell (`masks`); a
domain's camera (`domains`, `camera`) takes all pictures alike. `dataset.make_demo` writes the data set.
"""

from ifas.simulator.dataset import DemoSummary, make_demo

__all__ = ["DemoSummary", "make_demo"]
