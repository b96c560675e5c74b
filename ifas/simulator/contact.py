"""A contact sheet of a demo data set: a row of pictures per species, for people to look at."""

from __future__ import annotations

import json
from pathlib import Path

from ifas.core.errors import ConfigError
from ifas.core.files import replacing
from ifas.core.manifest import SAMPLES_FILE

CELL = 256  # pixels
STRIP = 18  # height of the line that names the species


def check_sheet(out: Path) -> None:
    """Raises ConfigError where `out` is neither a .jpg nor a .png: rendering first would take a minute."""
    if out.suffix.lower() not in (".jpg", ".png"):
        raise ConfigError(f"{out} can't be a contact sheet", "name a .jpg or a .png file")


def contact_sheet(folder: Path, out: Path, *, per_species: int = 12) -> None:
    """Writes `out`: at most `per_species` pictures of each species of the data set in `folder`, evenly over it.

    Raises:
        ConfigError: `out` is neither a .jpg nor a .png.
    """
    import cv2
    import numpy as np

    check_sheet(out)
    records = [json.loads(line) for line in (folder / SAMPLES_FILE).read_text(encoding="utf-8").splitlines()]
    bands = []
    for species in sorted({str(r["pai_species"]) for r in records}, key=lambda s: (s != "live", s)):
        some = [r for r in records if r["pai_species"] == species]
        count = min(per_species, len(some))
        band = np.zeros((STRIP + CELL, per_species * CELL, 3), np.uint8)
        for k in range(count):
            record = some[k * len(some) // count]
            picture = cv2.imread(str(folder / str(record["path"])))
            x = k * CELL
            band[STRIP:, x : x + CELL] = cv2.resize(picture, (CELL, CELL))
            name = f"{species} {record['domain']}"
            cv2.putText(band, name, (x + 4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (230, 230, 230), 1, cv2.LINE_AA)
        bands.append(band)
    with replacing(out) as beside:
        done, encoded = cv2.imencode(out.suffix, np.vstack(bands))
        assert done
        beside.write_bytes(encoded.tobytes())
