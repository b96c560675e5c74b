"""What a decision about a candidate needs, and what follows from it: whose signature, how many, which states."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from ifas.core.account import UNVERIFIED
from ifas.core.errors import GateError, StaleCandidate
from ifas.promotion import chain
from ifas.promotion.audit import approvers, may_return
from ifas.promotion.candidate import POLICY, Candidate, Entry
from ifas.promotion.clock import after, now
from ifas.promotion.entries import LEDGER_ITSELF, append, champion
from ifas.promotion.gates import HOW
from ifas.promotion.people import VERDICTS, Decision, People, lacking, read, sign
from ifas.promotion.products import Product, Trust, counts
from ifas.promotion.tables import TRANSITIONS, CandidateRow, DecisionRow

#: Why a state can't be left.
FINAL = {
    "refused": "the gate refused it",
    "expired": "it waited for too long",
    "superseded": "another was approved, or it was judged again, since",
}


class Verdict(NamedTuple):
    """What somebody says of a candidate."""

    state: str
    actor: str
    reason: str
    key: str
    override: bool


def impossible(row: CandidateRow, state: str, ungated: str, *, override: bool) -> GateError | None:
    """Why a candidate can't be brought to a state.

    Args:
        ungated: why its gate's result does not count for its product; see `gates.unsigned`.
    """
    needs = row.state == "refused" or (state == "approved" and bool(ungated))
    # A superseded one returns by a revocation only.
    follows = state in TRANSITIONS[row.state] and (row.state, state) != ("superseded", "approved")
    if follows and override == needs:
        return None
    if follows and row.state != "refused" and not override:
        return GateError(ungated, HOW)
    if override and not needs:
        return GateError(f"candidate {row.id} is {row.state}: an override is for refused ones", "leave --override out")
    why = FINAL.get(row.state, "no such decision follows" if row.state in ("pending", "approved") else "that is final")
    verb = VERDICTS[state]
    fix = "`ifas candidates` lists them" if state == "revoked" else "train and submit a new one"
    return GateError(f"candidate {row.id} is {row.state}: {why}, so you can't {verb} it", fix)


def decided(session: Session, row: CandidateRow, verdict: Verdict, product: Product | None) -> list[Entry]:
    """The entries of a decision: its own, and of what follows from it.

    Raises:
        GateError: the product has reviewers, and this is none of them, or not one who may decide this.
    """
    people = product.parsed_people if product else None
    state, actor, envelope = verdict.state, verdict.actor, None
    at, previous = after(session), champion(session, row.product)
    ends = state == "revoked" and previous is not None and previous.id == row.id
    back = _reinstated(session, row.product, product) if ends else None
    by_policy = actor == POLICY and state == "approved" and not verdict.key
    if product is not None and people is not None and not by_policy:
        if not verdict.key:
            raise GateError(
                f"product {row.product} is decided about by its reviewers ({', '.join(people.reviewers)}), who sign",
                "decide with your key: --key KEY.pem",
            )
        said = Decision(
            decision=VERDICTS[state],
            override=verdict.override,
            reviewer=actor,
            reason=verdict.reason,
            candidate=row.id,
            product=row.product,
            evidence_sha256=row.evidence_sha256,
            evidence=row.evidence,
            record_sha256=chain.record(Candidate.of(row).as_dict()),
            ledger=product.ledger or "",
            registration=product.hash,
            at=at,
            reinstates=back.id if back else "",
        )
        envelope = sign(people, said, verdict.key)
        actor = read(people, envelope).reviewer
        if state == "approved":
            _require_may_approve(people, row, actor, override=verdict.override)
            before = approvers(product, Candidate.of(row), entries_of(session, row))
            few = lacking(people, [*before, actor])
            if actor in before and few:
                return []
            state = row.state if few else state
    elif verdict.key:
        raise GateError(
            f"product {row.product} has no reviewers, so there is nobody whose key this could be",
            "leave the key out, or have reviewers registered: ifas product register --reviewer NAME=KEY.pub",
        )
    made = [append(session, row, state, actor, verdict.reason, envelope, at=at)]
    if state == "approved":
        others = select(CandidateRow).where(
            CandidateRow.product == row.product, CandidateRow.state == "approved", CandidateRow.id != row.id
        )
        why = f"{row.id} was approved"
        made += [append(session, one, "superseded", LEDGER_ITSELF, why) for one in session.scalars(others).all()]
    elif back is not None:
        why = f"{row.id}, which superseded it, was revoked"
        made.append(append(session, back, "approved", LEDGER_ITSELF, why, envelope))
    return made


def _require_may_approve(people: People, row: CandidateRow, reviewer: str, *, override: bool) -> None:
    submitter = str(row.facts.get("submitter", "")).removesuffix(UNVERIFIED)
    if reviewer == submitter and not people.submitter_may_approve:
        raise GateError(
            f"{reviewer} submitted candidate {row.id}, and product {row.product} wants another person to approve it",
            f"ask one of {', '.join(sorted(set(people.reviewers) - {reviewer})) or 'the administrator'}",
        )
    if override and reviewer not in people.overriders:
        raise GateError(
            f"{reviewer} may not approve what the gate refused",
            f"ask one of {', '.join(people.overriders)}" if people.overriders else "train and submit a new one",
        )


def not_registered(product: str) -> GateError:
    """Of a ledger with an administrator: there, what nobody registered is for nobody to approve."""
    return GateError(
        f"product {product} is not registered by the ledger's administrator",
        "have it registered: ifas product register",
    )


def entries_of(session: Session, row: CandidateRow) -> list[Entry]:
    """The decisions about a candidate, oldest first."""
    query = select(DecisionRow).where(DecisionRow.candidate_id == row.id).order_by(DecisionRow.seq)
    return [Entry.of(one) for one in session.scalars(query)]


def expire(session: Session, product: str, people: People | None) -> list[Entry]:
    """Ends the candidates of a product that wait for longer than it allows."""
    if people is None or people.pending_days is None:
        return []
    oldest = now() - timedelta(days=people.pending_days)
    waiting = select(CandidateRow).where(CandidateRow.product == product, CandidateRow.state == "pending")
    return [
        append(session, row, "expired", LEDGER_ITSELF, f"waited for longer than {people.pending_days} days")
        for row in session.scalars(waiting).all()
        if datetime.fromisoformat(row.created) < oldest
    ]


def _reinstated(session: Session, name: str, product: Product | None) -> CandidateRow | None:
    """The latest champion before this one that its product may have today, by its policy and its people."""
    query = (
        select(CandidateRow)
        .join(DecisionRow, DecisionRow.candidate_id == CandidateRow.id)
        .where(CandidateRow.product == name, CandidateRow.state == "superseded", DecisionRow.to_state == "approved")
        .order_by(DecisionRow.seq.desc())
    )
    fitting = (
        row for row in session.scalars(query) if may_return(product, Candidate.of(row), entries_of(session, row))
    )
    return next(fitting, None)


def require_fresh(session: Session, row: CandidateRow) -> None:
    """Raises StaleCandidate where the gate compared a candidate with another champion than today's."""
    best, before = champion(session, row.product), row.evidence.get("champion", "")
    today = best.id if best else ""
    if today != before:
        raise StaleCandidate(
            f"candidate {row.id} was compared with {f'champion {before}' if before else 'no champion'}, but the "
            f"champion of product {row.product} is {today or 'none'} by now",
            f'have it judged again: ifas approve {row.id} --reason "...", or run its gate again',
        )


def require_policy(product: Product | None, row: CandidateRow, actor: str, *, override: bool, trust: Trust) -> None:
    """Raises where a candidate is not what its product asks for today; one that is not registered asks for nothing.

    Args:
        trust: where the ledger has an administrator, every product must be registered by them.
    """
    if not counts(product, trust):
        raise not_registered(row.product)
    if product is None:
        if override:
            raise GateError(f"product {row.product} is not registered, so nobody may override its gate", "register it")
        return
    policy = product.parsed_policy
    if row.evidence.get("policy") != policy.sha256:
        raise StaleCandidate(
            f"candidate {row.id} was judged by another policy than product {product.name} has, {policy.name!r}",
            f'have it judged again: ifas approve {row.id} --reason "...", or run its gate again',
        )
    if actor == POLICY and not product.by_policy:
        raise GateError(f"product {product.name} is approved by people, not by its policy", "approve.by_policy=false")
    if actor != POLICY and product.people is None and (override or not product.by_policy):
        raise GateError(
            f"product {product.name} has no reviewers, and an account name proves nothing",
            "have them registered: ifas product register --reviewer NAME=KEY.pub",
        )
