"""`ifas review` and `ifas review account`: the review page, and who may sign in to it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ifas.cli.run import ConfigOption, SetOption

if TYPE_CHECKING:
    from ifas.core.config import RunConfig
    from ifas.database.connection import Database

DATABASE_ENV = "IFAS_REVIEW"

app = typer.Typer(invoke_without_command=True)
account_app = typer.Typer(no_args_is_help=True)
app.add_typer(account_app, name="account", help="Who may sign in with a password.")


@app.callback()
def review(
    context: typer.Context,
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
    host: Annotated[str | None, typer.Option(help="Where to listen; review.host.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0 picks a free one; review.port.")] = None,
) -> None:
    """Serve the review page until interrupted: candidates, all that speaks for and against them, and the decision."""
    if context.invoked_subcommand is not None:
        return
    import logging

    from ifas.cli.review_data import open_dataset
    from ifas.core.config import load
    from ifas.promotion.statements import signer
    from ifas.review import serving
    from ifas.review.app import app as review_app
    from ifas.review.key import key_of
    from ifas.steps.announce import announcing, receiver
    from ifas.steps.ledger import open_ledger

    settings = load(config, overrides)
    receiver(settings)  # what can't be used is refused before anybody decides
    if settings.review.signing_key:
        signer(settings.review.signing_key)
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    page = settings.review.model_copy(update=given)
    serving.check_address(page)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    ledger, database = open_ledger(settings), _database(settings)
    made = review_app(
        ledger=ledger,
        database=database,
        config=page,
        key=key_of(page.key),
        open_dataset=open_dataset,
        deciding=lambda: announcing(settings, ledger),
    )

    def ready(url: str) -> None:
        typer.echo(f"review page at {url}  (stop with Ctrl-C)")
        if not page.proxy_header and not _has_accounts(database):
            typer.echo("nobody can sign in yet: ifas review account add NAME --role reviewer")

    serving.serve(made, page.host, page.port, ready)


@account_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Name to sign in with; decisions carry it.")],
    role: Annotated[str, typer.Option(help="viewer, reviewer (decides) or admin.")],
    password_env: Annotated[str, typer.Option(help="Variable that holds the password; else it is asked for.")] = "",
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
) -> None:
    """Make an account, or give one another password and role."""
    from ifas.core.account import account
    from ifas.core.config import load
    from ifas.review.accounts import Accounts

    settings = load(config, overrides)
    made = Accounts(_database(settings)).add(name, _password(name, password_env), role, account())
    typer.echo(f"{made.name} is {made.role}")


@account_app.command("list")
def list_accounts(config: ConfigOption = "laptop", overrides: SetOption = None) -> None:
    """List every account."""
    from ifas.core.config import load
    from ifas.review.accounts import Accounts

    for one in Accounts(_database(load(config, overrides))).list():
        state = "disabled" if one.disabled else one.role
        typer.echo(f"{one.name:<20} {state:<9} made {one.at} by {one.made_by}")


@account_app.command("disable")
def disable(
    name: Annotated[str, typer.Argument(help="Name of the account.")],
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
) -> None:
    """Nobody signs in by this account any more; who is signed in is out at once. `add` enables it again."""
    from ifas.core.config import load
    from ifas.review.accounts import Accounts

    Accounts(_database(load(config, overrides))).disable(name)
    typer.echo(f"{name} is disabled")


def _database(settings: RunConfig) -> Database:
    """The page's database. `IFAS_REVIEW` overrides the configuration, so that no password has to be written there."""
    from ifas.database.connection import Database
    from ifas.review.tables import REVIEW

    return Database(os.environ.get(DATABASE_ENV) or settings.review.database, REVIEW)


def _has_accounts(database: Database) -> bool:
    from ifas.review.accounts import Accounts

    return any(not one.disabled for one in Accounts(database).list())


def _password(name: str, variable: str) -> str:
    """From a variable, or asked for twice. Raises ConfigError where neither can be."""
    from ifas.core.errors import ConfigError

    if variable:
        try:
            return os.environ[variable]
        except KeyError:
            raise ConfigError(f"{variable} is not set", f"set it to the password of {name}") from None
    if not sys.stdin.isatty():
        raise ConfigError("no password was given", "name the variable that holds it: --password-env NAME")
    return str(typer.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True))
