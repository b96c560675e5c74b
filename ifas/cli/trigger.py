"""`ifas trigger serve|list|replay|send`: runs that events start."""

from __future__ import annotations

import getpass
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ifas.cli.launch import EndpointOption, JsonOption, KfpNamespaceOption

app = typer.Typer(no_args_is_help=True)

StoreOption = Annotated[
    str,
    typer.Option(
        help="Database of events and decisions: sqlite:///FILE or postgresql://...", envvar="IFAS_TRIGGER_STORE"
    ),
]
DEFAULT_STORE = "sqlite:///.ifas/trigger.db"
VARIABLE = "IFAS_TRIGGER_SECRET"


@app.command("serve")
def serve(
    file: Annotated[Path, typer.Argument(help="Senders and rules, see docs/triggers.md.")],
    endpoint: EndpointOption,
    store: StoreOption = DEFAULT_STORE,
    namespace: KfpNamespaceOption = None,
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8080,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check rules, secrets and database; serve nothing.")
    ] = False,
) -> None:
    """Take signed CloudEvents and start runs, until SIGTERM."""
    import logging

    from ifas.core.config import RunConfig
    from ifas.core.errors import IfasError
    from ifas.core.urls import check_http
    from ifas.database.connection import check
    from ifas.steps import preflight
    from ifas.trigger import rules
    from ifas.trigger.dispatch import Dispatcher
    from ifas.trigger.service import Service
    from ifas.trigger.service import serve as serve_http
    from ifas.trigger.signature import keys_of_each
    from ifas.trigger.store import Store
    from ifas.trigger.tables import TRIGGER

    check_http(endpoint, "--endpoint")
    trigger = rules.load(file)
    keys_of_each({name: sender.secret for name, sender in trigger.senders.items()})
    for name, rule in trigger.rules.items():
        config = rules.example(rule)
        try:
            preflight.check_pods(config)
            if dry_run and rule.run == "retrain":
                preflight.check_to_send(config)
        except IfasError as error:
            raise type(error)(f"{file}: rules.{name}: {error.what}", error.fix) from error
    if dry_run:
        check(store, TRIGGER)
        typer.echo(f"{file}: {len(trigger.senders)} senders, {len(trigger.rules)} rules")
        return

    def start(pipeline: str, name: str, config: RunConfig, arguments: dict[str, str]) -> str:
        from ifas_pipelines.once import start_once

        run_id: str = start_once(
            endpoint, pipeline, name, config, arguments, experiment=trigger.experiment, namespace=namespace
        )
        return run_id

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("ifas.trigger").setLevel(logging.INFO)
    kept = Store(store)
    with kept.alone() as check_alone:
        dispatcher = Dispatcher(kept, trigger, start, check_alone)
        serve_http(
            Service(kept, trigger, dispatcher),
            host,
            port,
            lambda url: typer.echo(f"taking events at {url}/events  (stop with Ctrl-C)"),
        )


@app.command("list")
def list_events(
    store: StoreOption = DEFAULT_STORE,
    state: Annotated[str | None, typer.Option(help="new, held, starting, started, skipped, failed or refused.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000)] = 100,
    as_json: JsonOption = False,
) -> None:
    """List events and what was decided on them, newest first."""
    from ifas.core.errors import unknown_key
    from ifas.trigger.store import Store
    from ifas.trigger.tables import REFUSED, STATES

    if state is not None and state not in (*STATES, REFUSED):
        raise unknown_key("state", state, (*STATES, REFUSED))
    found = Store(store).listed(state, limit)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for event in found["events"]:
        last = event["decisions"][-1]["reason"] if event["decisions"] else ""
        typer.echo(
            f"{event['received'][:19]}  {event['state']:<8} {event['id']}  {event['about']}  {event['run']}  {last}"
        )
    for one in found["refused"]:
        typer.echo(f"{one['at'][:19]}  refused  {one['id']}  {one['reason']}")


@app.command("replay")
def replay(
    event: Annotated[str, typer.Argument(help="Id of an event that is decided.")],
    reason: Annotated[str, typer.Option(help="Why. Kept with the decision.")],
    source: Annotated[str | None, typer.Option(help="Its source, where several events have the id.")] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Have an event decided again, whatever its age and the cool-down; the service then starts a new run."""
    from ifas.trigger.store import Store

    Store(store).replay(event, source, f"{reason} (by {getpass.getuser()})", datetime.now(UTC))
    typer.echo(f"event {event} is to be decided again")


@app.command("send")
def send(
    event: Annotated[Path, typer.Argument(help="A CloudEvent as JSON (structured mode).")],
    url: Annotated[str, typer.Option(help="Where the trigger takes events, e.g. http://127.0.0.1:8080/events.")],
    variable: Annotated[
        str, typer.Option("--secret", help="Environment variable with the sender's secret.")
    ] = VARIABLE,
) -> None:
    """Sign an event and send it."""
    from ifas.core.errors import ConfigError
    from ifas.core.urls import check_http
    from ifas.trigger.sending import post
    from ifas.trigger.signature import keys_of

    check_http(url, "--url")
    try:
        body = event.read_bytes()
    except OSError as error:
        raise ConfigError(f"{event} can't be read: {error.strerror}", "name a JSON file") from error
    typer.echo(json.dumps(post(url, body, keys_of(variable)[0])))
