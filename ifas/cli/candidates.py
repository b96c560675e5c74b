"""`ifas candidates|show|approve|reject|revoke|package`: the ledger, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ifas.cli.run import ConfigOption, SetOption
from ifas.core.account import UNVERIFIED, account

CandidateArgument = Annotated[str, typer.Argument(help="Candidate id, or at least its first 6 digits.")]
ReasonOption = Annotated[str, typer.Option(help="Why. Kept with the decision.")]
KeyOption = Annotated[
    str, typer.Option("--key", help="Your private key, where the product has reviewers: a PEM file, or env:NAME.")
]
AsOption = Annotated[str, typer.Option("--as", help="Reviewer, where the key speaks for more than one.")]


def _ledger(config: str, overrides: list[str] | None) -> Any:
    from ifas.core.config import load
    from ifas.steps.ledger import open_ledger

    return open_ledger(load(config, overrides))


@contextmanager
def _deciding(config: str, overrides: list[str] | None) -> Iterator[Any]:
    """The ledger, for a decision. At the end of the block it is told to the receiver of events, where there is one."""
    from ifas.core.config import load
    from ifas.steps.announce import announcing, receiver
    from ifas.steps.ledger import open_ledger

    settings = load(config, overrides)
    receiver(settings)  # a wrong one is refused before anything is decided
    ledger = open_ledger(settings)
    with announcing(settings, ledger):
        yield ledger


def candidates(
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
    state: Annotated[
        str | None, typer.Option(help="pending, refused, approved, rejected, superseded, revoked, expired.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List the candidates, newest first."""
    ledger = _ledger(config, overrides)
    ledger.verify()
    rows = ledger.list(state=state)
    if as_json:
        typer.echo(json.dumps([row.as_dict() for row in rows], indent=2))
        return
    for row in rows:
        typer.echo(f"{row.id}  {row.state:<10} {row.created}  run {row.run_id}")


def show(candidate: CandidateArgument, config: ConfigOption = "laptop", overrides: SetOption = None) -> None:
    """A candidate with its evidence, decisions and the product's registrations, as JSON; `ifas verify` checks it."""
    from ifas.core.config import load
    from ifas.steps.ledger import open_products

    found, entries = _ledger(config, overrides).checked(candidate)
    of = [entry for entry in open_products(load(config, overrides)).entries() if entry.name == found.product]
    history = [entry.as_dict() for entry in entries]
    registrations = [entry.model_dump(mode="json") for entry in of]
    typer.echo(json.dumps({**found.as_dict(), "history": history, "registrations": registrations}, indent=2))


def approve(
    candidate: CandidateArgument,
    reason: ReasonOption,
    key: KeyOption = "",
    name: AsOption = "",
    override: Annotated[
        bool, typer.Option("--override", help="Approve what the gate refused; for the product's overriders.")
    ] = False,
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
) -> None:
    """Approve a pending candidate. The champion until then is superseded.

    If another champion has been approved or the product's policy changed since its gate, it is judged by today's
    first, as a new candidate, and you decide about that.
    """
    from ifas.core.errors import GateError, StaleCandidate
    from ifas.promotion.again import judge_again

    with _deciding(config, overrides) as ledger:
        try:
            done = ledger.approve(candidate, actor=_who(name, key), reason=reason, key=key, override=override)
        except StaleCandidate as stale:
            if override:
                raise
            again = judge_again(ledger, candidate)
            rules = again.decision["rules"]
            raise GateError(
                f"{stale.what}; judged again it is candidate {again.id}, {again.state}: "
                f"{sum(rule['passed'] for rule in rules)} of {len(rules)} rules passed",
                f'see `ifas show {again.id}`, then: ifas approve {again.id} --reason "..."'
                if again.state == "pending"
                else f"see which rules failed: ifas show {again.id}",
            ) from stale
        if done.state == "approved":
            typer.echo(f"{done.id} is {done.state}; build its Bento with: ifas package {done.id} --out bento")
        else:
            typer.echo(f"{done.id} is {done.state}: product {done.product} asks for approvals of more reviewers")


def reject(
    candidate: CandidateArgument,
    reason: ReasonOption,
    key: KeyOption = "",
    name: AsOption = "",
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
) -> None:
    """Reject a pending candidate. Final."""
    with _deciding(config, overrides) as ledger:
        done = ledger.reject(candidate, actor=_who(name, key), reason=reason, key=key)
        typer.echo(f"{done.id} is {done.state}")


def revoke(
    candidate: CandidateArgument,
    reason: ReasonOption,
    key: KeyOption = "",
    name: AsOption = "",
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
) -> None:
    """Take an approval back. Final. The champion that it superseded, if any, is approved again."""
    with _deciding(config, overrides) as ledger:
        done = ledger.revoke(candidate, actor=_who(name, key), reason=reason, key=key)
        champion = ledger.champion(done.product)
        now = (
            f"the champion of product {done.product} is {champion.id}"
            if champion
            else f"{done.product} has no champion"
        )
        typer.echo(f"{done.id} is {done.state}; {now}")


def _who(name: str, key: str) -> str:
    """Who decides: the reviewer, whom the key proves; without a key the account, which nothing proves."""
    return name if key else f"{name}{UNVERIFIED}" if name else account()


def package(
    candidate: CandidateArgument,
    out: Annotated[Path, typer.Option(help="Folder for the Bento.")] = Path("bento"),
    run: Annotated[Path | None, typer.Option(help="Run folder with the artifacts, where the first is gone.")] = None,
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
) -> None:
    """Build the Bento of a candidate that a person approved. Any other state is refused."""
    from ifas.core.config import load
    from ifas.core.environment import prepare
    from ifas.steps.release import package_candidate

    prepare()
    typer.echo(package_candidate(load(config, overrides), candidate, out, run).summary)


ledger_app = typer.Typer(no_args_is_help=True)


@ledger_app.command("verify")
def verify(config: ConfigOption = "laptop", overrides: SetOption = None) -> None:
    """Check every decision, candidate and product of the ledger, and its witness."""
    from ifas.core.config import load
    from ifas.steps.ledger import open_products, witness

    settings = load(config, overrides)
    head, products = _ledger(config, overrides).verify(), open_products(settings).entries()
    place = witness(settings)
    kept = f"compared with the heads at {place.uri}" if place else "no heads are kept elsewhere"
    typer.echo(f"nothing was altered: last decision {head[:12] or 'none'}, {len(products)} products; {kept}")


@ledger_app.command("keep")
def keep(
    entries: Annotated[list[str] | None, typer.Argument(help="Hash of an entry, or its first 12 digits.")] = None,
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
) -> None:
    """List the entries whose heads the witness lacks; give it those of the entries that you name.

    An entry lacks its head where a process was killed, where there was no witness yet, and where somebody else wrote
    into the database. Look at each: it is then taken for true.
    """
    from ifas.core.config import load
    from ifas.core.errors import ConfigError
    from ifas.steps.ledger import open_products

    ledger = _ledger(config, overrides)
    missing = [*ledger.without_head(), *open_products(load(config, overrides)).without_head()]
    chosen = [head for head in missing if any(len(one) >= 12 and head.hash.startswith(one) for one in entries or [])]
    unknown = [one for one in entries or [] if not any(head.hash.startswith(one) for head in chosen)]
    if unknown:
        raise ConfigError(f"no entry without a head begins with {', '.join(unknown)}", "`ifas ledger keep` lists them")
    ledger.keep(chosen)
    for head in missing:
        done = "kept   " if head in chosen else "no head"
        typer.echo(f"{done} {head.hash[:12]}  entry {head.seq} of the {head.chain}: {head.about}")


@ledger_app.command("announce")
def announce(
    config: ConfigOption = "laptop",
    overrides: SetOption = None,
    before: Annotated[
        bool, typer.Option("--all", help="Also the decisions from before events were switched on.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent; send nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Send the events of decisions that the receiver has not acknowledged, oldest first."""
    from ifas.core.config import load
    from ifas.core.errors import DataError, LaunchError
    from ifas.steps.announce import required, send, switch_on

    settings = load(config, overrides)
    required(settings)
    ledger = _ledger(config, overrides)
    if not dry_run:
        switch_on(settings)
    told = send(settings, ledger, again=True, before=before, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps([{"event": one.event, "state": one.state, "why": one.why} for one in told], indent=2))
    else:
        for one in told:
            about = f"{one.event['time']}  {one.event['subject']}  {one.event['type']}"
            typer.echo(f"{'to send' if dry_run else one.state:<8} {about}{f'  {one.why}' if one.why else ''}")
        if not told:
            typer.echo("nothing is left to send")
    missed = [one for one in told if one.state != "sent"]
    if missed and not dry_run:
        kind = DataError if missed[0].state == "refused" else LaunchError
        raise kind(
            f"{len(missed)} of {len(told)} events were not sent: {missed[0].why}",
            "correct the receiver, or its rules for this sender; then run the same command again",
        )
