"""`ifas data import`: a dataset as it is distributed becomes a revision of the registry."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ifas.core.environment import prepare
from ifas.core.errors import DataError
from ifas.core.home import home

if TYPE_CHECKING:
    from ifas.data.registry import Registry


def import_data(
    layout: Annotated[str, typer.Argument(help="Reader, such as celeba-spoof; an unknown one lists them.")],
    root: Annotated[Path, typer.Argument(help="The dataset as it is distributed.")],
    name: Annotated[str, typer.Option(help="Name of the dataset; default: the layout's.")] = "",
    licence: Annotated[str, typer.Option(help="SPDX id or terms, where the layout does not say.")] = "",
    accept_licence: Annotated[str, typer.Option(help="Your name: you accept the terms that are shown.")] = "",
    frames: Annotated[str, typer.Option(help="Frames of a video: two (6 and 6 + n/2), or every:K.")] = "two",
    out: Annotated[Path | None, typer.Option(help="Dataset folder to make; default: below the ifas home.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=4096, help="Processes that pack.")] = None,
    registry: Annotated[Path, typer.Option(help="Dataset registry: a git repository with DVC.")] = Path(
        ".ifas/registry"
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what was found.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Read, pack, validate and register a dataset; prints what was found, the licence terms and the revision.

    An image is checked by its header and the end of its file; a run decodes it. An import that was stopped goes on
    where it was. Terms are accepted once, by name, and the record is kept.
    """
    prepare()
    from ifas.data.findings import findings, lines
    from ifas.data.readers import reader

    scan = reader(layout).scan(root)
    found = findings(scan)
    if not as_json:
        for line in lines(found):
            typer.echo(line)
    if dry_run:
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        return
    from ifas.data.dataset import check_name
    from ifas.data.registry import Registry
    from ifas.steps.importing import import_dataset

    name = name or (layout if layout != "folder" else scan.name)
    check_name(name)
    terms = licence or scan.licence
    there = Registry.init(registry) if not registry.exists() else Registry(registry)
    by, at = _acceptance(there, name, terms, accept_licence, quiet=as_json)
    done = import_dataset(
        layout,
        root,
        name=name,
        out=out or home() / "imports" / name,
        registry=there,
        licence=terms,
        frames=frames,
        workers=workers,
    )
    if as_json:
        facts = {
            "found": found,
            "licence": {"terms": terms, "accepted_by": by, "accepted_at": at},
            "packed": done.packed.facts,
            "advisory": list(done.advisory),
            "revision": done.published.revision,
            "tag": done.published.tag,
            "changed": done.published.changed,
        }
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(done.packed.summary)
    typer.echo("checked        headers and ends of files; a run decodes all images and lists those damaged inside")
    for refusal in done.packed.refused:
        typer.echo(f"refused {refusal.source}: {refusal.reason}", err=True)
    for note in done.advisory:
        typer.echo(f"note {note}")
    typer.echo(
        f"{done.published.tag} {done.published.revision}{'' if done.published.changed else ' (unchanged)'}, "
        f"terms accepted by {by} at {at}"
    )


def _acceptance(registry: Registry, name: str, terms: str, by: str, *, quiet: bool) -> tuple[str, str]:
    """Who accepted the terms and when; asks where nobody did and somebody is there to answer."""
    from ifas.data.licences import accept, accepted

    if not quiet:
        typer.echo(f"{'terms':<15}{terms or 'none stated'}")
    there = accepted(registry, name, terms)
    if there is None and not by:
        if quiet or not sys.stdin.isatty():
            raise DataError(
                f"the terms of {name} are not accepted: {terms or 'none stated'}",
                'read them, then pass --accept-licence "YOUR NAME"',
            )
        by = typer.prompt("Type your name to accept these terms", default=getpass.getuser())
    done = there or accept(registry, name, terms, by)
    return done.accepted_by, done.accepted_at
