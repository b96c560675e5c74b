"""Datasets: readers of raw layouts, packing into shards with one manifest, and the versioned registry.

The only room that talks to DVC (`dvc_repo`). Raw images come in by a reader, `pack` writes a dataset folder,
`registry` versions it and brings it back by revision, `shards` reads image bytes for everyone else.
"""
