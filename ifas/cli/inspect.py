"""`ifas config` and `ifas model`: show a configuration and the size of its model before a run."""

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
def describe_model(
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
    memory_gib: Annotated[
        float | None,
        typer.Option(min=0, max=100_000, help="Memory of one worker's device; else the GPU here, else RAM."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All numbers, in units, bytes and FLOPs.")] = False,
) -> None:
    """Parameters, memory per ZeRO stage and FLOPs, and whether training fits. Nothing is downloaded or allocated."""
    from ifas.core.config import load
    from ifas.core.environment import prepare

    settings = load(config, overrides)
    prepare()
    from ifas.model.sizing import device_memory, size, will_not_fit

    sizes = size(settings.model, settings.train)
    device = device_memory(settings.train, memory_gib)
    warning = will_not_fit(settings.model, settings.train, device, sizes)
    if as_json:
        fit = {"device": device._asdict(), "fits": warning is None, "warning": str(warning) if warning else None}
        typer.echo(json.dumps({**sizes, **fit}, indent=2))
        return
    from ifas.cli.size_table import size_table

    for line in size_table(sizes, settings.train, device):
        typer.echo(line)
    if warning:
        typer.echo(f"\nwarning: {warning}")
