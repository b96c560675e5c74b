"""Thumbnails for the report, as `data:` URIs, so that it stays one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ifas.core.errors import IfasError
from ifas.core.imaging import decode
from ifas.core.manifest import ImageSource

if TYPE_CHECKING:
    import pandas as pd

#: Longer side in pixels, and bytes of all images of a page.
SIDE = 160
BUDGET = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A JPEG as a `data:` URI; width and height in pixels."""

    uri: str
    width: int
    height: int


def thumbnails(ids: Sequence[str], manifest: pd.DataFrame, images: ImageSource) -> dict[str, Picture]:
    """Thumbnails by sample id, in the given order, until BUDGET bytes are used. Skips unreadable or missing images."""
    if not {"sample_id", "shard", "row"} <= set(manifest.columns):
        return {}
    wanted = manifest[manifest["sample_id"].isin(set(ids))].drop_duplicates("sample_id").set_index("sample_id")
    out: dict[str, Picture] = {}
    spent = 0
    for id in dict.fromkeys(ids):
        if id not in wanted.index:
            continue
        try:
            picture = _small(images.read(str(wanted.at[id, "shard"]), int(wanted.at[id, "row"])))
        except (IfasError, ValueError, TypeError):
            # The page is also for broken data: a row that points nowhere has no thumbnail.
            continue
        if spent + len(picture.uri) > BUDGET:
            break
        spent += len(picture.uri)
        out[id] = picture
    return out


def _small(data: bytes) -> Picture:
    from PIL import Image

    image = Image.fromarray(decode(data))
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(uri=uri, width=image.width, height=image.height)
