"""`ifas compile|submit|launch`: the same DAG and steps on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifas.cli.run import ConfigOption, SetOption
from ifas.core.errors import LaunchError

app = typer.Typer(no_args_is_help=True)


def compile_pipeline(
    out: Annotated[Path, typer.Argument(help="File to write.")] = Path("build/retrain.yaml"),
) -> None:
    """Compile the `retrain` pipeline to KFP's IR YAML."""
    from ifas_pipelines.remote import compile_to

    compile_to(out)
    typer.echo(str(out))


def submit(
    endpoint: Annotated[str, typer.Option(help="KFP API, e.g. http://localhost:8888.", envvar="KFP_ENDPOINT")],
    config: ConfigOption = "base",
    overrides: SetOption = None,
    experiment: Annotated[str, typer.Option()] = "ifas",
    namespace: Annotated[str | None, typer.Option()] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compile and print the request, send nothing.")] = False,
) -> None:
    """Compile the pipeline and send it to a KFP endpoint. A token comes by KFP_TOKEN."""
    from ifas_pipelines.remote import submit_run

    from ifas.core.config import load
    from ifas.steps.folder import new_run_id

    settings = load(config, overrides)
    run_id = new_run_id()
    if dry_run:
        typer.echo(f"would submit retrain as {run_id} to {endpoint} (experiment {experiment}, profile {config})")
        return
    try:
        found = submit_run(endpoint, settings.model_dump_json(), run_id, experiment=experiment, namespace=namespace)
    except ConnectionError as error:
        raise LaunchError(str(error), "check --endpoint, and that the KFP API is reachable from here") from error
    typer.echo(found)
