"""`ifas config` and `ifas model`: look before you run."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ifas.cli.run import ConfigOption, SetOption

config_app = typer.Typer(no_args_is_help=True)
model_app = typer.Typer(no_args_is_help=True)


@config_app.command("list")
def list_profiles() -> None:
    """Names of the profiles that come with ifas."""
    from ifas.core.config import profiles

    for name in profiles():
        typer.echo(name)


@config_app.command("show")
def show_config(
    source: Annotated[str, typer.Argument(help="Profile, or a YAML file.")] = "laptop",
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of YAML.")] = False,
) -> None:
    """The whole configuration, defaults filled in."""
    from ifas.core.config import load

    tree = load(source, overrides).model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps(tree, indent=2))
    else:
        import yaml

        typer.echo(yaml.safe_dump(tree, sort_keys=False), nl=False)


@model_app.command("describe")
def describe_model(config: ConfigOption = "laptop", overrides: SetOption = None) -> None:
    """Parameters per part, total and trainable, as JSON. Built on the meta device: no weights, no memory."""
    from ifas.core.config import load
    from ifas.core.environment import prepare

    prepare()
    from ifas.model.build import describe

    typer.echo(json.dumps(describe(load(config, overrides).model), indent=2))
