"""`ifas gate --explain|--replay`: why a candidate passed or failed, and what another policy would have said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ifas.cli.run import ConfigOption, SetOption

if TYPE_CHECKING:
    from ifas.core.config import RunConfig
    from ifas.promotion.explain import Explained
    from ifas.promotion.ledger import Ledger

#: Rules that a line of the table names.
SHOWN = 3


def gate(
    explain: Annotated[
        str | None,
        typer.Option(metavar="CANDIDATE", help="Show each rule of its decision, and what would flip it."),
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(metavar="POLICY", help="Decide about the last candidates by this file, or builtin:NAME."),
    ] = None,
    product: Annotated[str | None, typer.Option(help="Of --replay; else the configuration's gate.product.")] = None,
    last: Annotated[int, typer.Option(min=1, help="Of --replay: how many candidates, the newest.")] = 20,
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Explain a decision of the gate, or try a policy on the candidates of the ledger. Both only read."""
    from ifas.core.config import load
    from ifas.core.errors import ConfigError

    if (explain is None) == (replay is None):
        raise ConfigError("one of --explain and --replay is needed", "--explain CANDIDATE, or --replay POLICY")
    if explain is not None and product is not None:
        raise ConfigError("--product is for --replay", "leave it out: the id names the candidate")
    settings = load(config, overrides)
    if explain is not None:
        _explain(settings, explain, as_json)
    else:
        _replay(settings, replay or "", settings.gate.product if product is None else product, last, as_json)


def _ledger(settings: RunConfig) -> Ledger:
    """The ledger, where there is one: who only reads makes none."""
    from ifas.core.errors import ConfigError
    from ifas.database.connection import exists
    from ifas.promotion.upgrade import LEDGER
    from ifas.steps.ledger import ledger_url, open_ledger

    if not exists(ledger_url(settings), LEDGER):
        raise ConfigError(f"there is no ledger at {ledger_url(settings)}", "set gate.ledger to one that is there")
    return open_ledger(settings)


def _explain(settings: RunConfig, candidate: str, as_json: bool) -> None:
    from ifas.promotion.explain import explain

    found, _ = _ledger(settings).checked(candidate)
    rules = explain(found)
    failed = sum(not one.outcome.passed for one in rules)
    name, notes = found.decision.get("policy"), found.decision.get("notes", [])
    if as_json:
        tree = {"candidate": found.id, "state": found.state, "policy": name, "passed": not failed, "notes": notes}
        typer.echo(json.dumps({**tree, "rules": [one.as_dict() for one in rules]}, indent=2))
        return
    typer.echo(f"candidate {found.id} is {found.state}: {failed} of {len(rules)} rules of policy {name} failed")
    for note in notes:
        typer.echo(f"note: {note}")
    for one in rules:
        typer.echo(_shown(one))


def _shown(one: Explained) -> str:
    rule = one.outcome
    rests = [
        f"n {'unknown' if rule.n is None else rule.n}" + (f" (at least {rule.min_n})" if rule.min_n else ""),
        f"subjects {'unknown' if rule.n_subjects is None else rule.n_subjects}"
        + (f" (at least {rule.min_subjects})" if rule.min_subjects else ""),
    ]
    parts = [
        f"value {_number(rule.value)}",
        *([f"difference {rule.difference:+.4f}"] if rule.difference is not None else []),
        f"bound {_number(rule.number)} ({rule.bound}{f' of {rule.species}' if rule.species else ''})",
        f"{rule.kind} {rule.limit:g}",
        f"margin {_number(rule.margin, signed=True)}",
        *rests,
    ]
    return (
        f"{'passed' if rule.passed else 'FAILED'}  {rule.id}: {rule.metric} of {rule.slice}"
        f"{f' against baseline {rule.against}' if rule.against else ''}\n"
        f"        {', '.join(parts)}\n"
        f"        {rule.why}\n"
        f"        flips it: {one.flips}"
    )


def _number(value: float | None, *, signed: bool = False) -> str:
    return "none" if value is None else f"{value:{'+' if signed else ''}.4f}"


def _replay(settings: RunConfig, source: str, product: str, last: int, as_json: bool) -> None:
    from ifas.promotion.policy import load_policy
    from ifas.promotion.replay import replay

    policy = load_policy(source)
    found = replay(_ledger(settings), product, policy, last)
    if as_json:
        tree = {"product": product, "policy": policy.name, "policy_sha256": policy.sha256}
        typer.echo(json.dumps({**tree, "candidates": [one.as_dict() for one in found]}, indent=2))
        return
    typer.echo(f"product {product}, {len(found)} candidates under policy {policy.name}; nothing was written")
    typer.echo(f"{'candidate':<12}  {'made':<19}  {'state':<10}  then    now     first rules that fail now")
    for one in found:
        failed = ", ".join(one.failed[:SHOWN])
        more = f" and {len(one.failed) - SHOWN} more" if len(one.failed) > SHOWN else ""
        then, now = (f"{'passed' if passed else 'failed'}" for passed in (one.passed_then, one.decision.passed))
        made = one.candidate.created[:19]
        typer.echo(
            f"{one.candidate.id:<12}  {made:<19}  {one.candidate.state:<10}  {then}  {now}  {failed}{more}".rstrip()
        )
    changed = sum(one.passed_then != one.decision.passed for one in found)
    typer.echo(f"{changed} of {len(found)} would be decided otherwise")
