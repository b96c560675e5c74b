"""`ifas schedule apply|list|delete`: recurring runs as code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ifas.cli.launch import EndpointOption, JsonOption, KfpNamespaceOption
from ifas.core.errors import ConfigError, LaunchError

if TYPE_CHECKING:
    from ifas_pipelines.schedules import Change, Schedules

app = typer.Typer(no_args_is_help=True)

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would change, change nothing.")]


@app.command("apply")
def apply(
    files: Annotated[Path, typer.Argument(help="A schedule file, or a folder of them.")],
    endpoint: EndpointOption,
    namespace: KfpNamespaceOption = None,
    prune: Annotated[bool, typer.Option("--prune", help="Delete schedules of ifas in no file of the folder.")] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make KFP's recurring runs those of the files; applying again changes nothing."""
    from ifas_pipelines.schedules import read

    from ifas.core.urls import check_http

    check_http(endpoint, "--endpoint")
    if prune and not files.is_dir():
        raise ConfigError("--prune would delete the schedules of all other files", "name their folder")
    requests = read(files)
    with _schedules(endpoint, namespace) as there:
        changes = there.apply(requests, prune=prune, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps([asdict(change) for change in changes], indent=2))
        return
    for change in changes:
        typer.echo(f"{_said(change)}{' (dry run)' if dry_run else ''}")


@app.command("list")
def list_schedules(endpoint: EndpointOption, namespace: KfpNamespaceOption = None, as_json: JsonOption = False) -> None:
    """List the schedules that `apply` made."""
    with _schedules(endpoint, namespace) as there:
        found = there.listed()
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    for one in found:
        typer.echo(f"{one.name:<24} {one.cron:<16} {'enabled' if one.enabled else 'disabled'}")


@app.command("delete")
def delete(
    name: Annotated[str, typer.Argument(help="Schedule.")],
    endpoint: EndpointOption,
    namespace: KfpNamespaceOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a schedule. While a run of it is not finished, it is only disabled: delete it again afterwards."""
    with _schedules(endpoint, namespace) as there:
        change = there.delete(name, dry_run=dry_run)
    typer.echo(json.dumps(asdict(change)) if as_json else _said(change))


def _said(change: Change) -> str:
    waits = f", the old one waits for run {' and '.join(change.waits_for)}" if change.waits_for else ""
    return f"{change.name}  {change.action}{waits}"


@contextmanager
def _schedules(endpoint: str, namespace: str | None) -> Iterator[Schedules]:
    """The schedules at an endpoint."""
    from ifas_pipelines.schedules import Schedules

    from ifas.core.urls import check_http

    check_http(endpoint, "--endpoint")
    try:
        yield Schedules(endpoint, namespace)
    except ConnectionError as error:
        raise LaunchError(str(error), "check --endpoint, --namespace and KFP_TOKEN") from error
