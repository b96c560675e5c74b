"""`ifas product register|list`: what models are for, the policy of each, and who approves."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ifas.cli.candidates import ReasonOption, account
from ifas.cli.run import ConfigOption, SetOption

app = typer.Typer(no_args_is_help=True)


def _products(config: str, overrides: list[str] | None) -> Any:
    from ifas.core.config import load
    from ifas.steps.gate import open_products

    return open_products(load(config, overrides))


@app.command("register")
def register(
    name: Annotated[str, typer.Argument(help="Name that runs give as gate.product.")],
    policy: Annotated[str, typer.Option(help="Policy file, or builtin:NAME.")],
    reason: ReasonOption,
    by_policy: Annotated[
        bool, typer.Option("--by-policy", help="A candidate that passes may be approved without a person.")
    ] = False,
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
) -> None:
    """Register a product, or change its policy. Runs of a registered product can't choose another policy.

    Every change is an entry of its own in the ledger; the same again changes nothing.
    """
    from ifas.promotion.policy import load_policy

    rules = load_policy(policy)
    done = _products(config, overrides).register(name, rules, by_policy=by_policy, actor=account(), reason=reason)
    typer.echo(f"product {done.name}: policy {rules.name}, approved by {_approver(done)} (entry {done.seq})")


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
    return "the policy or people" if product.by_policy else "people"
