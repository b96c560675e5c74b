"""Entry point of the `ifas` command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ifas import __version__
from ifas.cli import candidates, data, demo, inspect, launch, run, serve
from ifas.core.errors import IfasError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Retrain, judge and ship an interpretable face anti-spoofing model.",
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


app.command()(demo.demo)
app.command()(run.run)
app.command()(run.step)
app.command("compile")(launch.compile_pipeline)
app.command()(launch.submit)
app.command()(candidates.candidates)
app.command()(candidates.show)
app.command()(candidates.approve)
app.command()(candidates.reject)
app.command()(candidates.package)
app.command()(serve.serve)
app.command()(serve.ask)
app.add_typer(data.app, name="data", help="Datasets: demo data, packing, the DVC registry.")
app.add_typer(inspect.config_app, name="config", help="Profiles and configuration.")
app.add_typer(inspect.model_app, name="model", help="Models without training them.")
app.add_typer(launch.app, name="launch", help="Steps as RayJobs on Kubernetes.")


def main() -> None:
    """Runs the command; an IfasError is printed without a traceback and sets the exit code."""
    try:
        app()
    except IfasError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
