"""`ifas data diff`: what changed between two revisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ifas.core.environment import prepare

if TYPE_CHECKING:
    import pandas as pd


def diff_data(
    old: Annotated[str, typer.Argument(help="Revision (tag, v1, commit), or a folder with a manifest.")],
    new: Annotated[str, typer.Argument(help="The later one.")],
    name: Annotated[str, typer.Option(help="Dataset in the registry.")] = "demo",
    registry: Annotated[Path, typer.Option(help="Dataset registry: a git repository with DVC.")] = Path(
        ".ifas/registry"
    ),
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Say which subjects, species, labels and captions came, went or changed. Images are not fetched.

    Captions are compared where both sides are captioned: name the `captions` folders of two runs.
    """
    prepare()
    from ifas.data.diff import diff, lines

    found = diff(_manifest(old, name, registry), _manifest(new, name, registry))
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines(found)))


def _manifest(place: str, name: str, registry: Path) -> pd.DataFrame:
    from ifas.core.manifest import MANIFEST_FILE, read_manifest
    from ifas.data.registry import Registry

    if (Path(place) / MANIFEST_FILE).is_file():
        return read_manifest(Path(place))
    return Registry(registry).manifest(name, place)
