"""Checks whether the ledger was altered: each link of the chain, transition, signature, and each candidate's state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from ifas.core.errors import IfasError
from ifas.promotion import chain
from ifas.promotion.candidate import GATE, POLICY, Candidate, Entry
from ifas.promotion.gates import unsigned
from ifas.promotion.gates import wrong as wrong_result
from ifas.promotion.people import VERDICTS, Decision, lacking, read
from ifas.promotion.products import Product, in_force
from ifas.promotion.tables import TRANSITIONS, CandidateRow, DecisionRow

#: States that follow from another decision, or from the time, by themselves.
OF_ITSELF = ("expired", "superseded")


@dataclass
class _Told:
    """What the decisions about one candidate have said so far."""

    state: str = ""
    was_approved: bool = False
    seq: int = 0
    #: Entries whose signature was checked.
    signed: list[Entry] = field(default_factory=list)


def audit(session: Session, products: Sequence[Product]) -> tuple[str, str]:
    """(hash of the last decision, first place where the ledger was altered; empty if it was not)."""
    candidates = {row.id: Candidate.of(row) for row in session.scalars(select(CandidateRow))}
    told = {name: _Told() for name in candidates}
    head, heads, revoked = "", {0: ""}, ""
    for position, row in enumerate(session.scalars(select(DecisionRow).order_by(DecisionRow.seq)), start=1):
        entry = Entry.of(row)
        candidate = candidates.get(entry.candidate_id)
        if entry.seq != position or entry.previous != head:
            wrong = "the decision before it is gone"
        elif candidate is None:
            wrong = "the candidate is gone"
        elif _back(entry) and revoked != candidate.product:
            wrong = "no champion was revoked right before it"
        else:
            wrong = _next(entry, candidate, told[candidate.id], products)
        if wrong or candidate is None:
            return head, f"decision {entry.seq} about candidate {entry.candidate_id}: {wrong}"
        head = heads[entry.seq] = entry.hash
        revoked = candidate.product if (entry.from_state, entry.to_state) == ("approved", "revoked") else ""
    for product in products:
        if product.follows and heads.get(product.follows["seq"]) != product.follows["hash"]:
            return head, f"decision {product.follows['seq']}: it is not the one that a registration followed"
    for name, candidate in candidates.items():
        if candidate.state != told[name].state:
            said = told[name].state or "nothing"
            return head, f"candidate {name}: it says {candidate.state}, its decisions say {said}"
    return head, ""


def history(candidate: Candidate, entries: Sequence[Entry], products: Sequence[Product]) -> str:
    """What is wrong with the decisions about one candidate, without the rest of the chain; empty if nothing is.

    An approval from before its product was registered is wrong here: there is nothing that proves it.
    """
    told = _Told()
    for entry in entries:
        unproven = entry.to_state == "approved" and in_force(products, candidate.product, entry.seq, entry.at) is None
        wrong = "it is of before the product was registered" if unproven else _next(entry, candidate, told, products)
        if wrong:
            return f"decision {entry.seq}: {wrong}"
    same = candidate.state == told.state
    return "" if same else f"it says {candidate.state}, its decisions say {told.state or 'nothing'}"


def _back(entry: Entry) -> bool:
    """Whether it makes a candidate champion again."""
    return (entry.from_state, entry.to_state) == ("superseded", "approved")


def _next(entry: Entry, candidate: Candidate, told: _Told, products: Sequence[Product]) -> str:
    """What is wrong with the next decision about a candidate; empty if nothing is, and then it is told."""
    product = in_force(products, candidate.product, entry.seq, entry.at)
    try:
        wrong = _broken(entry, candidate, told) or _unproven(entry, candidate, told, product)
    except (ValidationError, ValueError) as error:
        wrong = f"it or its product can't be read: {error}"
    told.state, told.seq = entry.to_state, entry.seq
    told.was_approved |= entry.to_state == "approved"
    return wrong


def _broken(entry: Entry, candidate: Candidate, told: _Told) -> str:
    """What is wrong with a decision, given the candidate and what was decided about it before; empty if nothing is."""
    if entry.seq <= told.seq or chain.link(entry.as_dict()) != entry.hash:
        return "its text does not fit its hash or its place"
    datetime.fromisoformat(entry.at)
    never = _back(entry) and not told.was_approved
    if entry.from_state != told.state or entry.to_state not in TRANSITIONS[told.state] or never:
        return f"it can't go from {told.state!r} to {entry.to_state!r}"
    if told.state == "" and (entry.to_state == "pending") != bool(candidate.decision.get("passed")):
        return f"it says {entry.to_state}, the gate's decision does not"
    if chain.record(candidate.as_dict()) != entry.record_sha256:
        return "the candidate's record was changed after it"
    bound = chain.evidence(candidate.product, candidate.evidence, candidate.decision)
    if not bound == entry.evidence_sha256 == candidate.evidence_sha256 or not bound.startswith(candidate.id):
        return "it is bound to other evidence than the candidate's"
    if candidate.evidence.get("model", candidate.model_sha256) != candidate.model_sha256:
        return "it is about another model than its evidence"
    return ""


def _unproven(entry: Entry, candidate: Candidate, told: _Told, product: Product | None) -> str:
    """What a decision lacks of the signatures that its product asked for at that time; empty if nothing.

    What was signed is then told.
    """
    people = product.parsed_people if product else None
    if entry.actor == GATE and entry.from_state in ("", entry.to_state):
        told.signed.append(entry)
        return wrong_result(entry, candidate, product)
    if entry.from_state == "" or entry.to_state in OF_ITSELF:
        return "it bears a signature that belongs elsewhere" if entry.statement is not None else ""
    if entry.statement is None:
        return _unsigned(entry, candidate, product, told)
    if people is None or product is None:
        return f"product {candidate.product} has no reviewers whose signature it could be"
    try:
        decision = read(people, entry.statement)
    except IfasError as error:
        return error.what
    if _back(entry):
        # What its reviewer signed is the revocation of the one after it, which names this candidate.
        asked = ("revoke", candidate.id, candidate.product)
        if (decision.decision, decision.reinstates, decision.product) != asked:
            return "its signature is not of a revocation that makes it champion again"
        return "" if may_return(product, candidate, told.signed) else "it was not approved as its product asks today"
    why = unsigned(product, candidate, told.signed) if decision.decision == "approve" else ""
    if why and entry.from_state != "refused" and not decision.override:
        return why
    if what := differs(decision, entry, candidate, product, told.signed):
        return what
    told.signed.append(entry)
    if decision.override and decision.reviewer not in people.overriders:
        return f"{decision.reviewer} may not approve what the gate refused, or has not signed"
    few = entry.to_state == "approved" and lacking(people, approvers(product, candidate, told.signed))
    return f"{people.approvals} reviewers must approve, fewer did" if few else ""


def _unsigned(entry: Entry, candidate: Candidate, product: Product | None, told: _Told) -> str:
    """Why a decision should be signed; empty if it need not be."""
    if entry.to_state == entry.from_state or entry.from_state == "refused":
        return "it is not signed"
    if entry.to_state == "approved" and (why := unsigned(product, candidate, told.signed)):
        return why
    if product is None or product.people is None:
        return ""
    if entry.actor == POLICY and entry.to_state == "approved" and product.by_policy and not _back(entry):
        by = product.parsed_policy.sha256
        return "" if candidate.evidence.get("policy") == by else "it was judged by another policy than its product's"
    return f"product {candidate.product} has reviewers, and none signed it"


def approvers(product: Product, candidate: Candidate, entries: Sequence[Entry]) -> list[str]:
    """The reviewers whose approvals of a candidate count by today's names and keys.

    What the gate refused, or none of the product's gates has signed, is approved by overriders only, who say so.
    """
    people = product.parsed_people
    if people is None:
        return []
    free = bool(candidate.decision.get("passed")) and not unsigned(product, candidate, entries)
    who = people.reviewers if free else people.overriders
    about = (candidate.id, candidate.product, chain.record(candidate.as_dict()), "approve")
    found = []
    for entry in entries:
        try:
            one = read(people, entry.statement or {})
        except IfasError:
            continue  # nobody's, or of a reviewer of then who is none now
        if (
            (one.candidate, one.product, one.record_sha256, one.decision) == about
            and one.reviewer in who
            and (free or one.override)
        ):
            found.append(one.reviewer)
    return list(dict.fromkeys(found))


def may_return(product: Product | None, candidate: Candidate, entries: Sequence[Entry]) -> bool:
    """Whether a candidate that was approved before may be champion again, by what its product asks for today."""
    if product is None:
        return True
    if candidate.evidence.get("policy") != product.parsed_policy.sha256:
        return False
    by_policy = product.by_policy and not unsigned(product, candidate, entries)
    return by_policy or enough(product, candidate, entries)


def enough(product: Product, candidate: Candidate, entries: Sequence[Entry]) -> bool:
    """Whether as many of a product's people have approved a candidate as must, by today's names and keys."""
    people = product.parsed_people
    return people is not None and not lacking(people, approvers(product, candidate, entries))


def differs(decision: Decision, entry: Entry, candidate: Candidate, product: Product, before: Sequence[Entry]) -> str:
    """How a signed decision differs from the entry that holds it; empty if it does not.

    Args:
        before: the signed entries about the candidate until then.
    """
    needs = entry.from_state == "refused" or bool(unsigned(product, candidate, before))
    said = {
        "decision": (decision.decision, VERDICTS.get(entry.to_state)),
        "reviewer": (decision.reviewer, entry.actor),
        "candidate": (decision.candidate, candidate.id),
        "reason": (decision.reason, entry.reason),
        "time": (decision.at, entry.at),
        "product": (decision.product, candidate.product),
        "registration": (decision.registration, product.hash),
        "ledger": (decision.ledger, product.ledger or ""),
        "evidence": (decision.evidence, candidate.evidence),
        "evidence's hash": (decision.evidence_sha256, candidate.evidence_sha256),
        "record": (decision.record_sha256, entry.record_sha256),
        "override": (decision.override, decision.decision == "approve" and needs),
    }
    return next((f"its signature is about another {name}" for name, (one, other) in said.items() if one != other), "")
