"""Readers of raw dataset layouts. To add one, write a module with a `scan` and add a line to `READERS`."""

from ifas.core.errors import unknown_key
from ifas.data.readers.celeba_spoof import CelebASpoof
from ifas.data.readers.folder import Folder
from ifas.data.readers.sample import RawSample, Reader, Refusal, Scan

READERS: dict[str, Reader] = {
    "celeba-spoof": CelebASpoof(),
    "folder": Folder(),
}


def reader(layout: str) -> Reader:
    """The reader of a layout. Raises ConfigError listing the known ones."""
    if layout not in READERS:
        raise unknown_key("layout", layout, READERS)
    return READERS[layout]


__all__ = ["READERS", "RawSample", "Reader", "Refusal", "Scan", "reader"]
