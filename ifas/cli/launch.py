"""`ifas compile|submit|launch`: the same DAG and steps on a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ifas.cli.run import ConfigOption, SetOption
from ifas.core.errors import LaunchError, unknown_key

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
    from ifas.core.urls import check_http
    from ifas.steps import preflight
    from ifas.steps.folder import new_run_id

    check_http(endpoint, "--endpoint")
    settings = load(config, overrides)
    preflight.check(settings, here=False)
    run_id = new_run_id()
    if dry_run:
        typer.echo(f"would submit retrain as {run_id} to {endpoint} (experiment {experiment}, profile {config})")
        return
    try:
        found = submit_run(endpoint, settings.model_dump_json(), run_id, experiment=experiment, namespace=namespace)
    except ConnectionError as error:
        raise LaunchError(str(error), "check --endpoint, and that the KFP API is reachable from here") from error
    typer.echo(found)


StepArgument = Annotated[str, typer.Argument(help="caption or train.")]
ImageOption = Annotated[str, typer.Option(help="Image by digest.", envvar="IFAS_IMAGE")]
InputOption = Annotated[list[str] | None, typer.Option("--input", "-i", help="name=s3://...")]
HashOption = Annotated[list[str] | None, typer.Option("--input-sha256", help="name=SHA-256 of its content.")]
OutputOption = Annotated[list[str] | None, typer.Option("--output", "-o", help="name=s3://...")]
RunOption = Annotated[str, typer.Option(help="Name of the run; the same name attaches to the same job.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, max=4096, help="Ray workers; else the profile's.")]
GpusOption = Annotated[int | None, typer.Option(min=0, max=64, help="GPUs per worker; else the profile's.")]
NamespaceOption = Annotated[str | None, typer.Option(help="Namespace of infra/base; else the profile's.")]
QueueOption = Annotated[str | None, typer.Option(help="Kueue local queue; else the profile's.")]


@app.command("render")
def render(
    step: StepArgument,
    image: ImageOption,
    run_id: RunOption,
    config: ConfigOption = "base",
    overrides: SetOption = None,
    inputs: InputOption = None,
    hashes: HashOption = None,
    outputs: OutputOption = None,
    workers: WorkersOption = None,
    gpus: GpusOption = None,
    namespace: NamespaceOption = None,
    queue: QueueOption = None,
) -> None:
    """Print a step's RayJob as YAML; nothing is sent. Sizes are those of `cluster` in the configuration."""
    import yaml

    sizes = _sizes(step, workers, gpus, namespace, queue)
    job = _rayjob(step, image, run_id, config, [*(overrides or []), *sizes], inputs, hashes, outputs)
    typer.echo(yaml.safe_dump(job, sort_keys=False), nl=False)


@app.command("run")
def run_job(
    step: StepArgument,
    image: ImageOption,
    run_id: RunOption,
    config: ConfigOption = "base",
    overrides: SetOption = None,
    inputs: InputOption = None,
    hashes: HashOption = None,
    outputs: OutputOption = None,
    workers: WorkersOption = None,
    gpus: GpusOption = None,
    namespace: NamespaceOption = None,
    queue: QueueOption = None,
) -> None:
    """Apply a step's RayJob and watch it to its end. Run again: it attaches. Ctrl-C deletes the job."""
    from ifas.launch.cluster import RayJobs, connect

    sizes = _sizes(step, workers, gpus, namespace, queue)
    job = _rayjob(step, image, run_id, config, [*(overrides or []), *sizes], inputs, hashes, outputs)
    outcome = RayJobs(connect(), job["metadata"]["namespace"]).run(job)
    typer.echo(f"RayJob {outcome.name} succeeded after {outcome.seconds:.0f} s")


def _sizes(step: str, workers: int | None, gpus: int | None, namespace: str | None, queue: str | None) -> list[str]:
    """The options as overrides of the profile."""
    given = {
        f"{step}.min_workers": workers,
        f"{step}.max_workers": workers,
        f"{step}.gpus_per_worker": gpus,
        f"{step}.queue": queue,
        "namespace": namespace,
    }
    return [f"cluster.{name}={json.dumps(value)}" for name, value in given.items() if value is not None]


def _rayjob(
    step: str,
    image: str,
    run_id: str,
    config: str,
    overrides: list[str],
    inputs: list[str] | None,
    hashes: list[str] | None,
    outputs: list[str] | None,
) -> dict[str, Any]:
    from ifas.cli.run import pairs
    from ifas.core.config import load
    from ifas.core.environment import prepare
    from ifas.launch.capacity import check_fits
    from ifas.launch.rayjob import STEPS, build_rayjob, describe, kept

    if step not in STEPS:
        raise unknown_key("RayJob step", step, STEPS)
    prepare()
    settings = kept(load(config, overrides))
    check_fits(settings, step)
    return build_rayjob(
        describe(
            step,
            settings,
            run_id=run_id,
            image=image,
            inputs=pairs(inputs),
            outputs=pairs(outputs),
            input_sha256=pairs(hashes),
        )
    )
