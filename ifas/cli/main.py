"""Entry point of the `ifas` command."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Annotated

import typer

from ifas import __version__
from ifas.cli import (
    candidates,
    cluster,
    data,
    demo,
    gate,
    inspect,
    launch,
    product,
    review,
    run,
    schedule,
    serve,
    trigger,
)
from ifas.core.errors import IfasError
from ifas.core.home import home
from ifas.core.urls import clean

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
app.command()(launch.runs)
app.command()(launch.logs)
app.command()(launch.cancel)
app.command()(candidates.candidates)
app.command()(candidates.show)
app.command()(gate.gate)
app.command()(candidates.approve)
app.command()(candidates.reject)
app.command()(candidates.revoke)
app.command()(candidates.package)
app.command()(serve.serve)
app.command()(serve.verify)
app.command()(serve.ask)
app.add_typer(data.app, name="data", help="Datasets: demo data, packing, the DVC registry.")
app.add_typer(candidates.ledger_app, name="ledger", help="Was the ledger altered?")
app.add_typer(product.app, name="product", help="What models are for, and the policy of each.")
app.add_typer(review.app, name="review", help="The review page: decide about candidates in a browser.")
app.add_typer(inspect.config_app, name="config", help="Profiles and configuration.")
app.add_typer(inspect.model_app, name="model", help="Models without training them.")
app.add_typer(cluster.app, name="cluster", help="Is a Kubernetes cluster ready for ifas?")
app.add_typer(launch.app, name="launch", help="Steps as RayJobs on Kubernetes.")
app.add_typer(schedule.app, name="schedule", help="Recurring runs on KFP, as code.")
app.add_typer(trigger.app, name="trigger", help="Runs that events start.")


def main() -> None:
    """Runs the command. An error is printed in words and sets the exit code; a bug's traceback goes to a file."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # a full disk may show only here
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback on a user's screen
        from ifas.core.unforeseen import named

        found = named(error) or _bug(error)
        sys.stderr.write(f"error: {found}\n")
        _drop_unwritten()
        sys.exit(found.exit_code)


def _drop_unwritten() -> None:
    """Drops what standard output does not take: at exit the interpreter would try again, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bug(error: Exception) -> IfasError:
    """What is said of an error that nobody foresaw; its traceback is kept in a file for this user's eyes."""
    text = clean("".join(traceback.format_exception(error)))
    name = f"bug-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in (home() / "bugs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Whatever lies there already, in a folder that everyone may write to, is not written to.
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8", errors="replace") as log:
                log.write(text)
        except OSError:
            continue
        what = f"this is a bug of ifas: {type(error).__name__}: {clean(str(error))}"
        return IfasError(what, f"report it with {(folder / name).absolute()}, which holds the traceback")
    return IfasError(f"this is a bug of ifas, and its log could not be written:\n{text}", "report it")
