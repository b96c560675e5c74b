"""`ifas product register|list`: what models are for, the policy of each, and who approves."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ifas.cli.candidates import ReasonOption
from ifas.cli.run import ConfigOption, SetOption
from ifas.core.account import account

app = typer.Typer(no_args_is_help=True)


def _products(config: str, overrides: list[str] | None) -> Any:
    from ifas.core.config import load
    from ifas.steps.ledger import open_products

    return open_products(load(config, overrides))


@app.command("register")
def register(
    name: Annotated[str, typer.Argument(help="Name that runs give as gate.product.")],
    policy: Annotated[str, typer.Option(help="Policy file, or builtin:NAME.")],
    reason: ReasonOption,
    by_policy: Annotated[
        bool, typer.Option("--by-policy", help="A candidate that passes may be approved without a person.")
    ] = False,
    reviewer: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE: who decides, and a public key (PEM) of theirs. Repeat it.")
    ] = None,
    approvals: Annotated[int, typer.Option(min=1, help="How many reviewers must approve.")] = 1,
    overrider: Annotated[list[str] | None, typer.Option(help="Reviewer who may approve what the gate refused.")] = None,
    submitter_may_approve: Annotated[
        bool, typer.Option("--submitter-may-approve", help="Who submitted the run may approve it, too.")
    ] = False,
    pending_days: Annotated[int | None, typer.Option(min=1, help="A candidate that waits for longer expires.")] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE: a gate whose signed results count, and its public key (PEM). Repeat it."),
    ] = None,
    key: Annotated[str, typer.Option(help="The administrator's private key: a PEM file, or env:NAME.")] = "",
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
) -> None:
    """Register a product, or change its policy or people. Runs of a registered product can't choose another policy.

    Every change is an entry of its own in the ledger; the same again changes nothing.
    """
    from ifas.promotion.policy import load_policy

    rules = load_policy(policy)
    people = _people(
        {
            "reviewers": _keys(reviewer or [], "--reviewer"),
            "approvals": approvals,
            "overriders": overrider or [],
            "submitter_may_approve": submitter_may_approve,
            "pending_days": pending_days,
        }
    )
    done = _products(config, overrides).register(
        name,
        rules,
        by_policy=by_policy,
        actor=account(),
        reason=reason,
        people=people,
        gates=_keys(gate or [], "--gate"),
        key=key,
    )
    signed = "signed" if done.statement else "not signed"
    entry = f"entry {done.seq} of ledger {done.ledger}, {signed}"
    entry += f", judged by {', '.join(done.gates)}" if done.gates else ""
    typer.echo(f"product {done.name}: policy {rules.name}, approved by {_approver(done)} ({entry})")


def _keys(given: list[str], option: str) -> dict[str, list[str]]:
    """NAME=FILE -> name -> public keys. Raises ConfigError."""
    from ifas.core.errors import ConfigError
    from ifas.promotion.statements import public_pem_of

    found: dict[str, list[str]] = {}
    for one in given:
        name, _, file = one.partition("=")
        if not name.strip() or not file:
            raise ConfigError(f"{option} {one!r} is not NAME=FILE", f"e.g. {option} alice=alice.pub")
        found.setdefault(name.strip(), []).append(public_pem_of(file))
    return found


def _people(given: dict[str, Any]) -> Any:
    """Who decides; None where nobody was named. Raises ConfigError."""
    from pydantic import ValidationError

    from ifas.core.config import first_problem
    from ifas.core.errors import ConfigError
    from ifas.promotion.people import People

    if not given["reviewers"]:
        alone = [name for name in ("overriders", "pending_days") if given[name]]
        alone += ["approvals"] if given["approvals"] > 1 else []
        if alone:
            raise ConfigError(f"{', '.join(alone)} without a reviewer", "name them: --reviewer NAME=FILE")
        return None
    try:
        return People.model_validate(given)
    except ValidationError as error:
        raise ConfigError(
            f"these people can't decide: {first_problem(error)}", "see `ifas product register --help`"
        ) from error


@app.command("list")
def list_products(
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List every registration, oldest first; the newest of a product counts."""
    entries = _products(config, overrides).entries()
    if as_json:
        typer.echo(json.dumps([entry.model_dump() for entry in entries], indent=2))
        return
    for entry in entries:
        typer.echo(
            f"{entry.seq:>3}  {entry.name}  policy {entry.parsed_policy.name}, approved by {_approver(entry)}; "
            f"{entry.at}, {entry.actor}: {entry.reason}"
        )


def _approver(product: Any) -> str:
    people = product.parsed_people
    found = ["the policy"] if product.by_policy else []
    if people:
        names = ", ".join(people.reviewers)
        found.append(f"{people.approvals} of {names}" if len(people.reviewers) > 1 else names)
    return " or ".join(found) or "nobody: name reviewers"
