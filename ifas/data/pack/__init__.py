"""Packs a raw dataset into a dataset folder: manifest, shards and an index of everything that happened.

    manifest.parquet               one row per image, columns of core.manifest.COLUMNS
    shards/shard-00000.parquet     sample_id and the encoded image, as it was distributed
    dataset.json                   name, licences, counts, hashes, what was refused and why

Order is by domain, then by path, and a shard holds one domain: a domain that comes later leaves the shards of the
others as they are, so only what is new is stored and pushed. No file holds a time or the name of a machine: the same
images give the same bytes with the same versions of the libraries, and so do videos on the same kind of processor.

`plan` cuts the samples into pieces of about a shard, a process each packs a `piece` beside the output, and `packing`
joins what they made. Images are in memory only until their row group is written, and rows only until their piece is
finished, so memory does not grow with images. A run that was stopped keeps its finished pieces.
"""

from ifas.data.pack.packing import PackReport, pack

__all__ = ["PackReport", "pack"]
