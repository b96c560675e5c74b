"""`ifas compile|submit|runs|logs|cancel|launch`: the same DAG and steps on a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ifas.cli.run import BaselineOption, ConfigOption, SetOption, baseline_pairs
from ifas.core.errors import ConfigError, LaunchError, unknown_key

if TYPE_CHECKING:
    from ifas_pipelines.remote import Runs

app = typer.Typer(no_args_is_help=True)


EndpointOption = Annotated[str, typer.Option(help="KFP API, e.g. http://localhost:8888.", envvar="KFP_ENDPOINT")]
RunArgument = Annotated[str, typer.Argument(help="Id that `ifas submit` printed, or `ifas runs` lists.")]
KfpNamespaceOption = Annotated[str | None, typer.Option(help="Namespace in KFP; else the profile's.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def compile_pipeline(
    out: Annotated[Path, typer.Argument(help="File to write.")] = Path("build/retrain.yaml"),
    config: ConfigOption = "base",
    overrides: SetOption = None,
) -> None:
    """Compile the `retrain` pipeline to KFP's IR YAML, with the pods' sizes of `cluster` in the configuration."""
    from ifas_pipelines.remote import compile_to

    from ifas.core.config import load
    from ifas.steps import preflight

    settings = load(config, overrides)
    preflight.check_pods(settings)
    compile_to(out, settings)
    typer.echo(str(out))


def submit(
    endpoint: EndpointOption,
    config: ConfigOption = "base",
    overrides: SetOption = None,
    baseline: BaselineOption = None,
    experiment: Annotated[str, typer.Option()] = "ifas",
    namespace: KfpNamespaceOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compile and print the request, send nothing.")] = False,
) -> None:
    """Compile the pipeline and send it to a KFP endpoint; print the run's id. A token comes by KFP_TOKEN."""
    from ifas.core.account import account
    from ifas.core.config import load
    from ifas.core.environment import prepare
    from ifas.core.urls import check_http
    from ifas.steps import baselines, preflight
    from ifas.steps.folder import new_run_id

    check_http(endpoint, "--endpoint")
    prepare()
    settings = baselines.with_baselines(load(config, overrides), baseline_pairs(baseline))
    preflight.check_to_send(settings)
    settings = baselines.pinned(settings)
    # Of the person who sends it: in the pods, everybody is the same account.
    gate = settings.gate.model_copy(update={"submitter": settings.gate.submitter or account()})
    settings = settings.model_copy(update={"gate": gate})
    name = new_run_id()
    if dry_run:
        typer.echo(f"would submit retrain as {name} to {endpoint} (experiment {experiment}, profile {config})")
        return
    with _kfp(endpoint, namespace) as runs:
        typer.echo(runs.submit(settings, experiment=experiment, name=name))


def runs(
    endpoint: EndpointOption,
    namespace: KfpNamespaceOption = None,
    count: Annotated[int, typer.Option(min=1, max=200, help="How many, newest first.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """List the runs at a KFP endpoint."""
    from ifas.core.config import ClusterConfig

    with _kfp(endpoint, namespace) as kfp:
        found = kfp.listing(namespace=ClusterConfig().namespace, count=count)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for run in found:
        typer.echo(f"{run['id']}  {run['state']:<9}  {run['created']}  {run['name']}")


def logs(
    run: RunArgument,
    endpoint: EndpointOption,
    step: Annotated[str | None, typer.Option(help="Only this step.")] = None,
    tail: Annotated[int, typer.Option(min=1, max=100_000, help="Lines of each step, from the end.")] = 100,
    namespace: Annotated[str | None, typer.Option(help="Namespace of the pods; else the profile's.")] = None,
) -> None:
    """Print the state of a run and its steps, and what their pods say. Pods are read by KUBECONFIG."""
    from ifas.core.config import ClusterConfig
    from ifas.launch.cluster import connect
    from ifas.launch.pod_logs import last_lines

    with _kfp(endpoint, namespace) as kfp:
        found = kfp.get(run)
    typer.echo(f"run {found['id']} {found['state'].lower()}" + (f": {found['error']}" if found["error"] else ""))
    tasks = [task for task in found["tasks"] if task["pod"] and task["name"] == (step or task["name"])]
    if step and not tasks:
        names = sorted({task["name"] for task in found["tasks"] if task["pod"]})
        raise ConfigError(f"run {run} has no pod of step {step}", f"its steps so far: {', '.join(names) or 'none'}")
    api = connect() if tasks else None
    for task in tasks:
        typer.echo(f"\n== {task['name']} ({task['state'].lower()}, pod {task['pod']})")
        typer.echo(last_lines(api, namespace or ClusterConfig().namespace, task["pod"], tail))


def cancel(run: RunArgument, endpoint: EndpointOption) -> None:
    """End a run. A step that waits for a RayJob deletes it."""
    with _kfp(endpoint, None) as kfp:
        kfp.cancel(run)
    typer.echo(f"run {run} is being ended")


@contextmanager
def _kfp(endpoint: str, namespace: str | None) -> Iterator[Runs]:
    """The runs at an endpoint."""
    from ifas_pipelines.remote import Runs

    from ifas.core.urls import check_http

    check_http(endpoint, "--endpoint")
    try:
        yield Runs(endpoint, namespace)
    except ConnectionError as error:
        raise LaunchError(str(error), "check --endpoint, the run's id, and that the KFP API is reachable") from error


StepArgument = Annotated[str, typer.Argument(help="caption or train.")]
ImageOption = Annotated[str, typer.Option(help="Image by digest; else cluster.image, else IFAS_IMAGE.")]
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
    run_id: RunOption,
    image: ImageOption = "",
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
    run_id: RunOption,
    image: ImageOption = "",
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
    from ifas.launch.pods import image_of
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
            image=image or image_of(settings.cluster),
            inputs=pairs(inputs),
            outputs=pairs(outputs),
            input_sha256=pairs(hashes),
        )
    )
