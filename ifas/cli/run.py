"""`ifas run` and `ifas step`: the whole DAG, or one node of it."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ifas.core.errors import ConfigError, IfasError, ModelRefused
from ifas.core.files import check_writable
from ifas.core.records import CONFIG_FILE, LINEAGE_FILE

if TYPE_CHECKING:
    from ifas.core.config import RunConfig

ConfigOption = Annotated[str, typer.Option("--config", "-c", help="Profile, or a YAML file.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", "-s", help="Override, e.g. train.steps=20.")]
BaselineOption = Annotated[
    list[str] | None,
    typer.Option("--baseline", help="name=CSV with sample_id and score: compared with the model on the same images."),
]


class Runner(StrEnum):
    """How the DAG runs on this machine."""

    kfp = "kfp"
    process = "process"


def run(
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
    runner: Annotated[Runner, typer.Option(help="kfp: a process per step by kfp.local; process: all in this one.")] = (
        Runner.kfp
    ),
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    baseline: BaselineOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the run, say what would run and why.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run the retrain pipeline on this machine; a step whose inputs did not change is reused."""
    from ifas.core.config import load
    from ifas.steps.baselines import with_baselines

    settings = with_baselines(load(config, overrides), baseline_pairs(baseline))
    if dry_run:
        _plan(settings, as_json)
        return
    folder = run_pipeline(settings, runner, runs, descriptor=2 if as_json else 1)
    lineage = json.loads((folder / LINEAGE_FILE).read_text())
    if as_json:
        typer.echo(json.dumps({"run": str(folder), "steps": lineage["entries"]}, indent=2))
    else:
        typer.echo(f"run       {folder}  (report: {folder / 'report.html'})")
    refuse(lineage["entries"])


def refuse(entries: list[dict[str, Any]]) -> None:
    """Raises ModelRefused where these steps of a run ended with a candidate that the gate, or a person, refused."""
    gate = next((entry["facts"] for entry in entries if entry["step"] == "gate"), None)
    approval = next((entry["facts"]["approval"] for entry in entries if entry["step"] == "approve"), None)
    if approval is not None and approval["state"] == "rejected":
        raise ModelRefused(
            f"candidate {approval['candidate']} was rejected by {approval['actor']}: {approval['reason']}",
            "that decision is final: train a new candidate",
        )
    if gate is None and approval is not None and approval["state"] == "refused":
        raise ModelRefused(f"the gate refused candidate {approval['candidate']}", "`ifas show` says by which rules")
    if gate is None or gate["decision"]["passed"]:
        return
    failed = [rule for rule in gate["decision"]["rules"] if not rule["passed"]]
    lines = [f"\n  - {rule['id']}: {rule['metric']} of {rule['slice']}: {rule['why']}" for rule in failed]
    raise ModelRefused(
        f"the gate refused candidate {gate['candidate']}, by {len(failed)} of {len(gate['decision']['rules'])} rules "
        f"of policy {gate['decision']['policy']}:{''.join(lines)}",
        f"read the report, then train a better model; see what is missing: ifas gate --explain {gate['candidate']}",
    )


def run_pipeline(config: RunConfig, runner: Runner, runs: Path, *, descriptor: int = 1) -> Path:
    """Runs the pipeline and gathers its results in `runs/<id>/`.

    Args:
        descriptor: where progress is shown, 1 or 2.

    Raises:
        IfasError: what was found wrong before anything ran, or the failing step's own error.
    """
    from ifas.cli.show import following
    from ifas.core.environment import prepare
    from ifas.core.unforeseen import named
    from ifas.steps import baselines, preflight
    from ifas.steps.folder import check_latest, gather, new_run_id

    prepare()
    check_writable(runs)
    check_latest(runs)
    preflight.check(config)
    config = baselines.pinned(config)
    run_id = new_run_id()
    folder = runs / run_id
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    root, log = folder / "artifacts", folder / "run.log"
    with following(folder / "events.jsonl", descriptor) as follower:
        try:
            _start(config, runner, run_id, root, log)
        except Exception as error:  # noqa: BLE001 - what is there is gathered, whatever it was
            # kfp raises a RuntimeError without the cause; the step's own error is in its event.
            stopped: Exception | None = error
        else:
            stopped = None
    gather(folder, root)
    if stopped is None:
        return folder
    failure = follower.failure
    known = named(stopped)
    if failure is None and known is not None:
        raise known from stopped
    if runner is Runner.process and known is None:
        raise stopped
    if failure is None:
        raise IfasError(f"run {run_id} ended without a step's error: {stopped}", f"read {log}") from stopped
    fix = failure["fix"] if failure["code"] != IfasError.exit_code else f"this is a bug of ifas: report it with {log}"
    failed = IfasError(f"step {failure['step']} failed: {failure['what']}", fix or f"see {log}")
    failed.exit_code = failure["code"]
    raise failed from stopped


def _start(config: RunConfig, runner: Runner, run_id: str, root: Path, log: Path) -> None:
    if runner is Runner.kfp:
        from ifas_pipelines.local import run_local

        run_local(config.model_dump_json(), run_id, root, log)
    else:
        from ifas.steps.chain import run_chain

        run_chain(config, run_id, root)


def _plan(config: RunConfig, as_json: bool) -> None:
    from ifas.core.environment import prepare
    from ifas.steps import baselines, preflight
    from ifas.steps.chain import plan

    prepare()
    preflight.check(config)
    config = baselines.pinned(config)
    for note in preflight.notes(config):
        typer.echo(note, err=True)
    rows = [{"step": step.name, "about": step.about, "reuse": reuse, "why": why} for step, reuse, why in plan(config)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        typer.echo(f"{row['step']:<9} {'reuse' if row['reuse'] else 'run  '}  {row['why']}")


def step(
    name: Annotated[str, typer.Argument(help="ingest, caption, validate, train, evaluate, gate, approve or package.")],
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
    inputs: Annotated[list[str] | None, typer.Option("--input", "-i", help="name=path or name=s3://...")] = None,
    hashes: Annotated[
        list[str] | None, typer.Option("--input-sha256", help="name=HEX: what the input must hold, else it is refused.")
    ] = None,
    outputs: Annotated[list[str] | None, typer.Option("--output", "-o", help="name=path or name=s3://...")] = None,
    run_id: Annotated[str, typer.Option(help="Name of the run; made up when not given.")] = "",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run even if nothing changed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run one step. `--input lineage=...` continues the lineage of the step before."""
    from ifas.core.config import load
    from ifas.core.environment import prepare
    from ifas.core.progress import emit
    from ifas.core.unforeseen import named
    from ifas.steps.folder import new_run_id
    from ifas.steps.staged import execute_staged

    prepare()
    try:
        result = execute_staged(
            name,
            load(config, overrides),
            run_id=run_id or new_run_id(),
            inputs=pairs(inputs),
            outputs=pairs(outputs),
            hashes=pairs(hashes),
            use_cache=not no_cache,
        )
    except Exception as error:
        # Also of what fails before or after the step itself: who launched this as a job knows only its events.
        told = named(error)
        if told is not None:
            emit("failed", name, what=told.what, fix=told.fix, code=told.exit_code, repeat=told.repeat)
        raise
    typer.echo(result.model_dump_json(indent=2) if as_json else result.summary)
    refuse([{"step": name, "facts": result.facts}])


def baseline_pairs(items: list[str] | None) -> dict[str, str]:
    """Name -> file, of `--baseline`."""
    return pairs(items, "--baseline flip=scores.csv")


def pairs(items: list[str] | None, example: str = "--input dataset=data/packed/demo") -> dict[str, str]:
    pairs: dict[str, Any] = {}
    for item in items or []:
        name, eq, value = item.partition("=")
        if not eq or not value:
            raise ConfigError(f"{item!r} is not of the form name=path", f"e.g. {example}")
        pairs[name] = value
    return pairs
