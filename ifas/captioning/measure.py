"""All measurements on one picture. Captions may say only what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ifas.captioning import edges as lines
from ifas.captioning import tones
from ifas.captioning.scene import Scene
from ifas.captioning.spectrum import DOTS, WAVES, fine_over_coarse, peak, tile_spectra
from ifas.captioning.traces import TRACES, traces
from ifas.captioning.view import Box, View

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ifas.captioning.edges import Edge
    from ifas.captioning.view import Picture

#: Measurements that look at the tones of the picture alone. To add one, add a line.
TONES: dict[str, Callable[[View], float]] = {
    "brightness": tones.brightness,
    "black_level": tones.black_level,
    "contrast": tones.contrast,
    "gamut": tones.gamut,
    "face_sharpness": tones.face_sharpness,
    "surround_sharpness": tones.surround_sharpness,
    "specular_share": tones.specular_share,
    "glare_share": tones.glare_share,
    "gloss": tones.gloss,
    "neck_step": tones.neck_step,
    "skin_variation": tones.skin_variation,
    "skin_texture": tones.skin_texture,
}

#: Names of all measurements that captions may rest on.
MEASUREMENTS: tuple[str, ...] = (
    *TONES,
    "wave_peak",
    "dot_peak",
    "fine_over_coarse",
    "bright_border",
    "dark_border",
    "border",
)
#: Numbers of a picture that the tuned captioner reads: measurements and traces.
FEATURES = len(MEASUREMENTS) + TRACES


@dataclass(frozen=True)
class Measured:
    """One picture and what was measured on it.

    Attributes:
        picture: uint8 RGB (H, W, 3), as it was decoded.
        view: the picture prepared for measuring, with the place of the face.
        edges: straight lines outside the face, the likeliest edge of a medium first.
        values: a number per name in `MEASUREMENTS`.
        traces: float32 (TRACES,).
    """

    picture: Picture
    view: View
    edges: list[Edge]
    values: dict[str, float]
    traces: npt.NDArray[np.float32]

    @property
    def features(self) -> npt.NDArray[np.float32]:
        """Measurements and traces, float32 (FEATURES,)."""
        import numpy as np

        return np.array([*self.values.values(), *self.traces], dtype=np.float32)

    @cached_property
    def scene(self) -> Scene:
        """What an onlooker would say of background, clothes and light."""
        return Scene.of(self.view, self.values)


def measure(picture: Picture, box: Box = None) -> Measured:
    """Measures a uint8 RGB picture (H, W, 3); without a box the central region stands for the face."""
    view = View.of(picture, box)
    values = {name: function(view) for name, function in TONES.items()}
    spectra = tile_spectra(view.detail)
    found = lines.edges(view)
    values |= {
        "wave_peak": peak(spectra, WAVES),
        "dot_peak": peak(spectra, DOTS),
        "fine_over_coarse": fine_over_coarse(spectra),
        "bright_border": lines.bright(found),
        "dark_border": lines.dark(found),
        "border": found[0].chance if found else 0.0,
    }
    return Measured(
        picture=picture,
        view=view,
        edges=found,
        values={name: values[name] for name in MEASUREMENTS},
        traces=traces(view, found, spectra),
    )
