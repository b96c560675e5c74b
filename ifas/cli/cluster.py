"""`ifas cluster check`: what a cluster lacks, before a run fails on it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from ifas.cli.run import ConfigOption, SetOption
from ifas.core.errors import LaunchError

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """A group, although it has one command."""


@app.command("check")
def check(
    config: ConfigOption = "base",
    overrides: SetOption = None,
    namespace: Annotated[str | None, typer.Option(help="Namespace of an overlay of infra; else the profile's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say what is there and what is missing. Reads only; exits with 7 if something is missing."""
    from ifas.core.config import load
    from ifas.launch.cluster import connect
    from ifas.launch.readiness import check as look

    given = [f"cluster.namespace={namespace}"] if namespace else []
    settings = load(config, [*(overrides or []), *given])
    findings = look(connect(), settings)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        wide = max(len(finding.check) for finding in findings)
        for found in findings:
            typer.echo(f"{found.state:<9}{found.check:<{wide}}  {found.what}")
            if found.fix and found.state != "ok":
                typer.echo(f"{'':<9}{'':<{wide}}  fix: {found.fix}")
    missing = [finding for finding in findings if finding.state == "missing"]
    if missing:
        count = f"{len(missing)} thing{'s are' if len(missing) > 1 else ' is'}"
        raise LaunchError(f"the cluster is not ready: {count} missing", "set them right from the top, then check again")
