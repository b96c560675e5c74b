"""`ifas data add|batches|release`: new spoof data is quarantined until a person releases it."""

from __future__ import annotations

import getpass
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ifas.core.environment import prepare

RegistryOption = Annotated[Path, typer.Option("--registry", help="Dataset registry: a git repository with DVC.")]
NameOption = Annotated[str, typer.Option(help="Dataset in the registry.")]
ByOption = Annotated[str, typer.Option(help="Who does this; default: the user of this session.")]
JsonOption = Annotated[bool, typer.Option("--json")]


def add(
    root: Annotated[Path, typer.Argument(help="Images as <subject>/<image>; samples.jsonl beside them may say more.")],
    name: NameOption,
    source: Annotated[str, typer.Option(help="Who delivered the images, such as red-team: caps count per source.")],
    species: Annotated[str, typer.Option(help="PAI species of every image, such as replay.phone; or live.")],
    domain: Annotated[str, typer.Option(help="Capture domain: camera and place.")],
    licence: Annotated[str, typer.Option(help="SPDX id or terms.")],
    canary: Annotated[bool, typer.Option("--canary", help="Never train on it, only watch it.")] = False,
    max_rows: Annotated[int, typer.Option(min=1, max=10**9, help="Rows that the source may hold.")] = 10_000,
    by: ByOption = "",
    registry: RegistryOption = Path(".ifas/registry"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the batch, add nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add new spoof data in quarantine: evaluated at once, trained on only after `ifas data release`."""
    prepare()
    from ifas.data.quarantine import add as add_batch
    from ifas.data.registry import Registry

    added = add_batch(
        Registry(registry),
        name,
        root,
        source=source,
        species=species,
        domain=domain,
        by=by or getpass.getuser(),
        licence=licence,
        canary=canary,
        max_rows=max_rows,
        dry_run=dry_run,
    )
    if as_json:
        typer.echo(json.dumps(asdict(added), indent=2))
        return
    done = (
        f"as {added.published.tag} {added.published.revision[:10]}" if added.published else "(dry run: nothing added)"
    )
    typer.echo(
        f"{added.batch}: {added.rows} images {added.status} {done}, {len(added.duplicates)} there already, "
        f"{len(added.refused)} not readable"
    )
    for path, reason in added.refused:
        typer.echo(f"refused {path}: {reason}", err=True)


def batches(
    name: Annotated[str, typer.Argument(help="Dataset.")],
    registry: RegistryOption = Path(".ifas/registry"),
    as_json: JsonOption = False,
) -> None:
    """Batches that were added to a dataset: who, when, how many, and their standing."""
    from ifas.data.quarantine import records
    from ifas.data.registry import Registry

    found = records(Registry(registry), name)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for batch, record in found.items():
        typer.echo(
            f"{batch}  {record['status']:<11} {record['rows']} images of {record['species']}  {_history(record)}"
        )


def _history(record: dict[str, Any]) -> str:
    text = f"added by {record['added_by']} {record['added_at']}"
    if "released_by" in record:
        text += f", released by {record['released_by']} {record['released_at']}: {record['reason']}"
    return text


def release(
    batch: Annotated[str, typer.Argument(help="Batch, as `ifas data batches` lists it.")],
    name: NameOption,
    run: Annotated[Path, typer.Option(help="Folder of a run on the dataset with this batch that passed validation.")],
    reason: Annotated[str, typer.Option(help="Why. Kept with the release.")],
    by: ByOption = "",
    registry: RegistryOption = Path(".ifas/registry"),
) -> None:
    """Open a quarantined batch to training. Needs a passed validation and a second person; recorded."""
    prepare()
    from ifas.data.registry import Registry
    from ifas.steps.releasing import release_batch

    published = release_batch(Registry(registry), name, batch, run=run, by=by or getpass.getuser(), reason=reason)
    typer.echo(f"{batch} is released: {published.tag} {published.revision[:10]}")
