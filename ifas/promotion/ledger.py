"""The ledger of candidates and of every decision about them.

A candidate starts as `pending` if it passed the gate, else as `refused`. People or the policy, giving a reason, make a
pending one `approved` or `rejected`. An approved one is the product's champion until it is `revoked`, or `superseded`
by the next; a pending one that waits for too long is `expired`. A decision is bound to the candidate's evidence hash
(dataset, captions, model, metrics, policy, champion), so it can't be used for another model; where a product has
reviewers, they sign it (`people`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from ifas.core.errors import ConfigError, DataError, GateError, unknown_key
from ifas.database.connection import Database
from ifas.promotion import chain, gates
from ifas.promotion.audit import audit, enough
from ifas.promotion.candidate import GATE, Candidate, DecisionLike, Entry
from ifas.promotion.clock import after
from ifas.promotion.deciding import (
    Verdict,
    decided,
    entries_of,
    expire,
    impossible,
    not_registered,
    require_fresh,
    require_policy,
)
from ifas.promotion.entries import LEDGER_ITSELF, append, champion
from ifas.promotion.gates import unsigned
from ifas.promotion.products import Product, Trust, chained, counts, last_decision, newest, registered
from ifas.promotion.tables import STATES, CandidateRow, DecisionRow
from ifas.promotion.upgrade import LEDGER
from ifas.promotion.witness import Head, Witness

#: Digits of a candidate's id, and the least number of them that may be given.
ID_DIGITS = 12
LEAST_DIGITS = 6
#: Name of the chain of decisions.
CHAIN = "decisions"

T = TypeVar("T")


class Ledger:
    """Opens a ledger, and makes its tables (and SQLite's folder) when they are not there.

    Args:
        url: SQLAlchemy URL of a SQLite file or a PostgreSQL database. Its password is never shown.
        witness: where the heads of its entries are kept as well; a URI: there, and required; empty: nowhere.
        admin: public key of who registers products, PEM or a file of it; empty: registrations need no signature.
        ledger: id of the ledger, as its registrations bear it: another one of the same administrator is refused.
        gate_key: reference of the private key that signs what gates find; empty: that is not signed.

    Raises:
        ConfigError: not a usable URL or key, or the database can't be reached.
    """

    def __init__(
        self,
        url: str,
        witness: str | Witness = "",
        admin: Path | str = "",
        ledger: str = "",
        gate_key: str = "",
    ) -> None:
        self.gate_key = gate_key
        self._trust = Trust.of(admin, ledger)
        self._database = Database(url, LEDGER)
        self._witness = Witness.of(witness)

    def close(self) -> None:
        """Closes the connections."""
        self._database.close()

    def submit(
        self,
        *,
        product: str,
        run_id: str,
        evidence: Mapping[str, str],
        model_sha256: str,
        dataset_revision: str,
        metrics: Mapping[str, Any],
        decision: DecisionLike,
        facts: Mapping[str, Any],
    ) -> Candidate:
        """Records a candidate, `pending` or `refused`, with the gate's signature where it has a key.

        The same evidence again gives the candidate that is there. If it waits for a signature of its product's gates,
        it gets it then.

        Args:
            evidence: name -> SHA-256 of everything the decision was made from. The candidate's id is the beginning
                of a hash over it, the decision and the product.
            decision: of the gate.
            facts: anything else to keep; not part of the evidence.

        Raises:
            DataError: a figure is not finite, which JSON can't hold.
            GateError: the id is taken by other evidence (12 hex digits of two hashes agree); or the product names its
                gates, and the key is of none.
            ConfigError: there is no such key.
        """
        judged = _json(decision.as_dict(), "decision")
        sha256 = chain.evidence(product, evidence, judged)
        failed = sum(not rule["passed"] for rule in judged.get("rules", []))
        state = "pending" if decision.passed else "refused"
        reason = f"{failed} rules failed" if failed else "every rule passed"
        fields: dict[str, Any] = {
            "id": sha256[:ID_DIGITS],
            "product": product,
            "run_id": run_id,
            "model_sha256": model_sha256,
            "evidence_sha256": sha256,
            "dataset_revision": dataset_revision,
            "evidence": _json(evidence, "evidence"),
            "metrics": _json(metrics, "metrics"),
            "decision": judged,
            "facts": _json(facts, "facts"),
        }
        made: list[Entry] = []
        with self._database.writing() as session:
            of = newest(self._audit(session), product)
            made += expire(session, product, of.parsed_people if of else None)
            present = session.get(CandidateRow, fields["id"])
            if present is None:
                present = CandidateRow(**fields, created=after(session), state=state)
                session.add(present)
                session.flush()
                made.append(self._judged(session, present, state, reason, of))
            elif present.evidence_sha256 != sha256:
                raise GateError(
                    f"candidate id {fields['id']} is taken by other evidence", "change the run and repeat it"
                )
            elif (
                self.gate_key
                and present.state == state
                and unsigned(of, Candidate.of(present), entries_of(session, present))
            ):
                made.append(self._judged(session, present, state, f"{reason}; signed since", of))
            found = Candidate.of(present)
        self._keep(made)
        return found

    def get(self, candidate: str) -> Candidate:
        """The candidate with this id, or the only one whose id begins so (6 digits or more). Raises GateError."""
        with self._database.reading() as session:
            return Candidate.of(self._find(session, candidate))

    def list(self, product: str | None = None, state: str | None = None) -> Sequence[Candidate]:
        """Candidates, newest first, of one product and state where given. Raises ConfigError for an unknown state."""
        if state is not None and state not in STATES:
            raise unknown_key("candidate state", state, STATES)
        first = select(DecisionRow.seq).where(DecisionRow.candidate_id == CandidateRow.id, DecisionRow.from_state == "")
        query = select(CandidateRow).order_by(first.scalar_subquery().desc())
        if product is not None:
            query = query.where(CandidateRow.product == product)
        if state is not None:
            query = query.where(CandidateRow.state == state)
        with self._database.reading() as session:
            return [Candidate.of(row) for row in session.scalars(query)]

    def approve(self, candidate: str, *, actor: str, reason: str, key: str = "", override: bool = False) -> Candidate:
        """Approves a candidate; approving it again changes nothing. The champion until then is superseded.

        Args:
            actor: who approves. With a key: the reviewer, or empty for the one whose key it is.
            key: reference of the reviewer's private key, which a product with reviewers asks for; see `people`.
            override: that it is approved although the gate refused it, which the product's overriders may do.

        Returns:
            The candidate: still `pending` (or `refused`) while the product asks for approvals of more reviewers.

        Raises:
            StaleCandidate: the champion is no longer the one that the gate compared it with; see `judge_again`.
            GateError: its state does not allow it, no reason is given, there is no such candidate, or the product has
                reviewers and this is none of them.
        """
        return self._decide(candidate, "approved", actor, reason, key, override=override)

    def reject(self, candidate: str, *, actor: str, reason: str, key: str = "") -> Candidate:
        """Rejects a pending candidate, for good; again it changes nothing. Arguments and errors as `approve`."""
        return self._decide(candidate, "rejected", actor, reason, key)

    def revoke(self, candidate: str, *, actor: str, reason: str, key: str = "") -> Candidate:
        """Takes an approval back, for good. Arguments and errors as `approve`.

        If it was the champion, the latest champion before it is approved again that was not revoked, that the product's
        policy of today has judged, and that as many of its reviewers of today have approved as must.
        """
        return self._decide(candidate, "revoked", actor, reason, key)

    def supersede(self, candidate: str, by: str, why: str) -> Candidate:
        """Ends a pending candidate that was judged again as another one. Raises GateError where it is not pending."""
        with self._database.writing() as session:
            self._audit(session)
            row = self._find(session, candidate)
            if row.state != "pending":
                raise GateError(f"candidate {row.id} is {row.state}, not pending", "see `ifas show`")
            made = append(session, row, "superseded", LEDGER_ITSELF, f"judged again as {by}: {why}")
            found = Candidate.of(row)
        self._keep([made])
        return found

    def champion(self, product: str) -> Candidate | None:
        """The candidate of a product that was approved last, or None. Raises DataError where the ledger was altered."""
        with self._database.reading() as session:
            self._audit(session)
            row = champion(session, product)
            return None if row is None else Candidate.of(row)

    def verify(self) -> str:
        """Checks the whole chain and every candidate against it, and the witness; returns the last decision's hash.

        Raises:
            DataError: the first decision or candidate that was altered, removed or added outside of ifas; or the
                witness can't be reached.
        """
        decisions = self.decisions()
        return decisions[-1][1].hash if decisions else ""

    def decisions(self) -> Sequence[tuple[Candidate, Entry]]:
        """Every decision with its candidate, oldest first, in one view of the ledger that `verify` lets pass."""

        def read(session: Session) -> Sequence[tuple[Candidate, Entry]]:
            of = {row.id: Candidate.of(row) for row in session.scalars(select(CandidateRow))}
            return [(of[entry.candidate_id], entry) for entry in _entries(session)]

        return self._checked(read)

    def shippable(self, candidate: str) -> tuple[Candidate, Sequence[Entry]]:
        """As `checked`, if its product is one that may be shipped: in a ledger with an administrator, a registered one.

        Raises:
            GateError, DataError: as `checked`.
        """
        found, entries = self.checked(candidate)
        product = self.product(found.product)
        if not counts(product, self._trust):
            raise not_registered(found.product)
        why = unsigned(product, found, entries) if found.state == "approved" else ""
        if product and why and not enough(product, found, entries):  # by overriders, then
            raise GateError(why, gates.HOW)
        return found, entries

    def checked(self, candidate: str) -> tuple[Candidate, Sequence[Entry]]:
        """A candidate and its decisions, oldest first, in one view of the ledger that `verify` would let pass.

        Raises:
            GateError: there is no such candidate.
            DataError: as `verify`.
        """
        found, entries = self._checked(
            lambda session: (Candidate.of(self._find(session, candidate)), _entries(session))
        )
        return found, [entry for entry in entries if entry.candidate_id == found.id]

    def product(self, name: str) -> Product | None:
        """A product as it was registered last, or None. Raises DataError where the products were altered."""
        return newest(registered(self._database, self._witness, self._trust), name)

    def without_head(self) -> Sequence[Head]:
        """Heads that the witness lacks: of processes that were killed, of before there was a witness, of an intruder.

        Raises:
            DataError: the ledger was altered, or the witness can't be reached.
            ConfigError: there is no witness.
        """
        return self._outside.missing(CHAIN, lambda: self._look(_entries), self._database.shown)

    def keep(self, heads: Sequence[Head]) -> None:
        """Gives the witness heads that a person has looked at. Raises as `without_head`."""
        self._outside.keep(heads)

    @property
    def _outside(self) -> Witness:
        if self._witness is None:
            raise ConfigError("no witness is set, so there is nowhere to keep heads", "set gate.witness")
        return self._witness

    def _audit(self, session: Session) -> Sequence[Product]:
        """The registrations of products. Raises DataError where anything was altered."""
        products = chained(self._database, session, self._trust)
        _, altered = audit(session, products)
        if altered:
            raise DataError(
                f"ledger {self._database.shown} was altered at {altered}",
                "restore it from a backup; approve and package nothing from it until then",
            )
        return products

    def _look(self, read: Callable[[Session], T]) -> tuple[T, Sequence[Head]]:
        """What `read` gives, and the head of every decision, in one view that the audit lets pass."""
        with self._database.reading() as session:
            self._audit(session)
            return read(session), [_head(entry) for entry in _entries(session)]

    def _checked(self, read: Callable[[Session], T]) -> T:
        """As `_look`, if the witness has these heads."""
        if self._witness is None:
            return self._look(read)[0]
        registered(self._database, self._witness, self._trust)
        return self._witness.check(CHAIN, lambda: self._look(read), self._database.shown)

    def _judged(self, session: Session, row: CandidateRow, state: str, reason: str, product: Product | None) -> Entry:
        """A gate's entry about a candidate, signed where the gate has a key."""
        at, envelope = after(session), None
        if self.gate_key:
            result = gates.Result.of(Candidate.of(row), product, at, last_decision(session)["hash"])
            envelope = gates.sign(result, product, self.gate_key)
        return append(session, row, state, GATE, reason, envelope, at=at)

    def _find(self, session: Session, candidate: str) -> CandidateRow:
        if not re.fullmatch(r"[0-9a-f]{1,64}", candidate):
            raise GateError(
                f"{candidate!r} is not a candidate id, which has hex digits only", "`ifas candidates` lists them"
            )
        if len(candidate) < LEAST_DIGITS:
            raise GateError(
                f"{candidate!r} is too short for a candidate id: {LEAST_DIGITS} digits are needed, so that a typing "
                "error does not name another candidate",
                "`ifas candidates` lists the ids",
            )
        query = select(CandidateRow).where(CandidateRow.id.startswith(candidate[:ID_DIGITS])).order_by(CandidateRow.id)
        rows = [row for row in session.scalars(query) if row.evidence_sha256.startswith(candidate)]
        if not rows:
            raise GateError(
                f"no candidate {candidate} in ledger {self._database.shown}", "`ifas candidates` lists them"
            )
        if len(rows) > 1:
            raise GateError(
                f"{candidate} names more than one candidate: {', '.join(row.id for row in rows)}",
                "give more digits of the id",
            )
        return rows[0]

    def _decide(
        self, candidate: str, state: str, actor: str, reason: str, key: str, *, override: bool = False
    ) -> Candidate:
        for name, value in (("reason", reason), ("actor", actor or key)):
            if not value.strip():
                raise GateError(f"no {name} given: a decision without one means nothing later", f"give a {name}")
        if state == "approved":
            registered(self._database, self._witness, self._trust)  # before the transaction, which must not wait
        made: list[Entry] = []
        with self._database.writing() as session:
            products = self._audit(session)
            row = self._find(session, candidate)
            if row.state == state:
                return Candidate.of(row)
            product = newest(products, row.product)
            people = product.parsed_people if product else None
            made += expire(session, row.product, people)
            # What has expired is kept, so the error waits for the end of the transaction.
            ungated = unsigned(product, Candidate.of(row), entries_of(session, row))
            wrong = impossible(row, state, ungated, override=override)
            if wrong is None:
                if state == "approved":
                    require_fresh(session, row)
                    require_policy(product, row, actor, override=override, trust=self._trust)
                verdict = Verdict(state, actor.strip(), reason.strip(), key, override)
                made += decided(session, row, verdict, product)
            found = Candidate.of(row)
        self._keep(made)
        if wrong:
            raise wrong
        return found

    def _keep(self, entries: Sequence[Entry]) -> None:
        """Keeps the heads of entries that this process has just made: they stand, wherever this fails."""
        if self._witness:
            self._witness.keep_made([_head(entry) for entry in entries], self._heads)

    def _heads(self) -> Sequence[Head]:
        with self._database.reading() as session:
            return [_head(entry) for entry in _entries(session)]


def _entries(session: Session) -> Sequence[Entry]:
    return [Entry.of(row) for row in session.scalars(select(DecisionRow).order_by(DecisionRow.seq))]


def _head(entry: Entry) -> Head:
    about = f"{entry.actor}: {entry.candidate_id} is {entry.to_state}"
    return Head(chain=CHAIN, seq=entry.seq, hash=entry.hash, about=about)


def _json(value: Mapping[str, Any], what: str) -> dict[str, Any]:
    """`value` as it will come back from the database. Raises DataError for NaN and infinity."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"the candidate's {what} can't be kept as JSON: {error}", "run evaluate and gate again"
        ) from error
    return plain
