"""The ledger on real SQLite and real PostgreSQL: states, races, and changes by an intruder that are detected."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from ifas.core.errors import ConfigError, DataError, GateError, MachineError, NotApproved
from ifas.promotion import chain
from ifas.promotion.approval import require_approved
from ifas.promotion.candidate import Candidate
from ifas.promotion.gate import Decision, decide
from ifas.promotion.ledger import Ledger
from ifas.promotion.policy import Policy, Rule
from tests.servers_pg import Postgres

POLICY = Policy(name="p", rules=[Rule(id="r", metric="auc", slice="target", min=0.5, reason="because")])


def decision(auc: float) -> Decision:
    return decide({"slices": {"target": {"auc": {"value": auc, "n": 9}}}}, None, POLICY)


def submit(ledger: Ledger, seed: str = "a", auc: float = 0.9, product: str = "ifas", **changes: Any) -> Candidate:
    model = hashlib.sha256(seed.encode()).hexdigest()
    given = {
        "product": product,
        "run_id": f"run-{seed}",
        "evidence": {"model": model, "policy": POLICY.sha256},
        "model_sha256": model,
        "dataset_revision": "f00",
        # Figures that do not survive a round through a careless database.
        "metrics": {"slices": {"target": {"auc": {"value": auc}}}, "odd": [0.1 + 0.2, 1e-17, 1.0, 12345678901234567]},
        "decision": decision(auc),
        "facts": {"artifacts": {"model": "/m"}},
    }
    return ledger.submit(**{**given, **changes})


def test_a_candidate_comes_back_as_it_was_given(ledger: Ledger) -> None:
    candidate = submit(ledger)
    assert candidate.state == "pending"
    assert candidate.id == candidate.evidence_sha256[:12]
    assert candidate.metrics["odd"] == [0.1 + 0.2, 1e-17, 1.0, 12345678901234567]
    assert (
        ledger.get(candidate.id) == ledger.get(candidate.id[:6]) == ledger.get(candidate.evidence_sha256) == candidate
    )
    (entry,) = ledger.checked(candidate.id)[1]
    assert (entry.from_state, entry.to_state, entry.actor) == ("", "pending", "gate")
    assert ledger.verify() == entry.hash


def test_submitting_the_same_evidence_again_changes_nothing(ledger: Ledger) -> None:
    first = submit(ledger)
    ledger.approve(first.id, actor="ann", reason="good")
    again = submit(ledger, run_id="another run")
    assert (again.id, again.state, again.run_id) == (first.id, "approved", first.run_id)
    assert len(ledger.list()) == 1
    # Another decision, another product: other candidates.
    assert submit(ledger, auc=0.8).id != first.id
    assert submit(ledger, product="other").id != first.id


def test_approve_and_reject_are_final(ledger: Ledger) -> None:
    good, bad = submit(ledger, "good"), submit(ledger, "bad")
    approved = ledger.approve(good.id[:6], actor="ann", reason="  looks right ")
    assert approved.state == "approved"
    assert ledger.reject(bad.id, actor="bob", reason="worst mistakes are obvious ones").state == "rejected"
    head = ledger.verify()
    # Again: nothing happens.
    assert ledger.approve(good.id, actor="eve", reason="me too").state == "approved"
    assert ledger.reject(bad.id, actor="eve", reason="me too").state == "rejected"
    assert ledger.verify() == head
    assert [e.actor for e in ledger.checked(good.id)[1]] == ["gate", "ann"]
    assert ledger.checked(good.id)[1][-1].reason == "looks right"
    with pytest.raises(GateError, match=f"{good.id} is approved"):
        ledger.reject(good.id, actor="eve", reason="no")
    with pytest.raises(GateError, match=f"{bad.id} is rejected"):
        ledger.approve(bad.id, actor="eve", reason="please")


def test_default_is_deny(ledger: Ledger) -> None:
    refused, pending = submit(ledger, "refused", auc=0.1), submit(ledger, "pending")
    assert refused.state == "refused"
    for act in (ledger.approve, ledger.reject):
        with pytest.raises(GateError, match=f"{refused.id} is refused: the gate refused it"):
            act(refused.id, actor="ann", reason="I insist")
    for candidate in (refused, pending):
        with pytest.raises(NotApproved, match=f"{candidate.id} is {candidate.state}, not approved"):
            require_approved(ledger, candidate.id, {})
    assert ledger.champion("ifas") is None
    ledger.approve(pending.id, actor="ann", reason="good")
    assert require_approved(ledger, pending.id, {}).state == "approved"


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_reason_is_needed(ledger: Ledger, reason: str) -> None:
    candidate = submit(ledger)
    with pytest.raises(GateError, match="no reason"):
        ledger.approve(candidate.id, actor="ann", reason=reason)
    with pytest.raises(GateError, match="no actor"):
        ledger.reject(candidate.id, actor=reason, reason="bad")
    assert ledger.get(candidate.id).state == "pending"


def test_list_and_champion(ledger: Ledger) -> None:
    a, b, c = (submit(ledger, seed) for seed in "abc")
    other = submit(ledger, "d", product="other")
    assert [row.id for row in ledger.list()] == [other.id, c.id, b.id, a.id]
    assert [row.id for row in ledger.list(product="ifas", state="pending")] == [c.id, b.id, a.id]
    with pytest.raises(ConfigError, match="candidate state 'open'"):
        ledger.list(state="open")
    for candidate in (c, other):
        ledger.approve(candidate.id, actor="ann", reason="good")
    later = submit(ledger, "e", evidence={"model": hashlib.sha256(b"e").hexdigest(), "champion": c.id})
    ledger.approve(later.id, actor="ann", reason="better")
    champion = ledger.champion("ifas")
    assert champion is not None
    assert champion.id == later.id
    assert ledger.champion("nothing") is None
    assert [row.id for row in ledger.list(state="pending")] == [b.id, a.id]


def evidence_sha256(seed: str) -> str:
    """The hash that begins with the id of the candidate which `submit` makes of this seed."""
    given = {"model": hashlib.sha256(seed.encode()).hexdigest(), "policy": POLICY.sha256}
    return chain.evidence("ifas", given, decision(0.9).as_dict())


@cache
def twins() -> tuple[str, str]:
    """Two seeds whose candidates' ids begin with the same six digits."""
    seen: dict[str, str] = {}
    for seed in map(str, range(100_000)):
        first = seen.setdefault(evidence_sha256(seed)[:6], seed)
        if first != seed:
            return first, seed
    raise AssertionError("no two hashes share 24 bits")


def test_a_prefix_that_names_two_candidates_decides_about_neither(ledger: Ledger) -> None:
    one, other = (submit(ledger, seed) for seed in twins())
    assert one.id[:6] == other.id[:6]
    assert one.id != other.id
    for act in (ledger.approve, ledger.reject):
        with pytest.raises(GateError, match="names more than one candidate") as caught:
            act(one.id[:6], actor="ann", reason="good")
        assert one.id in caught.value.what
        assert other.id in caught.value.what
    assert {row.state for row in ledger.list()} == {"pending"}
    assert ledger.get(one.id).id == one.id


@pytest.mark.parametrize("digits", range(1, 6))
def test_fewer_than_six_digits_name_no_candidate(ledger: Ledger, digits: int) -> None:
    candidate = submit(ledger)
    short = candidate.id[:digits]
    doings = (
        ledger.get,
        ledger.checked,
        lambda name: require_approved(ledger, name, {}),
        lambda name: ledger.approve(name, actor="ann", reason="good"),
        lambda name: ledger.reject(name, actor="ann", reason="bad"),
    )
    for doing in doings:
        with pytest.raises(GateError, match=r"too short.*6 digits"):
            doing(short)
    assert ledger.get(candidate.id[:6]).state == "pending"


def test_names_that_fit_nothing(ledger: Ledger) -> None:
    submit(ledger)
    for bad in ("", "%", "xyz", "A", "' OR 1=1", "0" * 12, "0" * 65):
        with pytest.raises(GateError, match="candidate"):
            ledger.get(bad)


def test_figures_that_are_no_json_are_refused(ledger: Ledger) -> None:
    with pytest.raises(DataError, match="metrics can't be kept"):
        submit(ledger, metrics={"auc": float("nan")})
    assert ledger.list() == []


def test_concurrent_decisions_have_one_winner(url: str) -> None:
    """Eight clients with connections of their own decide about one candidate at once."""
    ledgers = [Ledger(url) for _ in range(8)]
    try:
        for round_ in range(5):
            candidate = submit(ledgers[0], str(round_))
            start = threading.Barrier(len(ledgers))

            def act(i: int, candidate: Candidate = candidate, start: threading.Barrier = start) -> str:
                start.wait()
                decide_ = ledgers[i].approve if i % 2 else ledgers[i].reject
                try:
                    return decide_(candidate.id, actor=f"client-{i}", reason="mine").state
                except GateError:
                    return "lost"

            with ThreadPoolExecutor(len(ledgers)) as pool:
                results = list(pool.map(act, range(len(ledgers))))
            state = ledgers[0].get(candidate.id).state
            # Those who wanted the winner's state see it, the others are told; the chain holds one decision.
            assert results.count("lost") == len(ledgers) // 2
            assert set(results) == {state, "lost"}
            assert [e.to_state for e in ledgers[0].checked(candidate.id)[1]] == ["pending", state]
        ledgers[0].verify()
    finally:
        for ledger in ledgers:
            ledger.close()


def test_concurrent_first_use_and_submits(url: str) -> None:
    """Clients that open a new database and submit at once: one set of tables, no lost or doubled link."""
    start = threading.Barrier(6)

    def act(i: int) -> str:
        start.wait()
        ledger = Ledger(url)
        try:
            return submit(ledger, str(i // 2)).id
        finally:
            ledger.close()

    with ThreadPoolExecutor(6) as pool:
        ids = list(pool.map(act, range(6)))
    ledger = Ledger(url)
    assert len(set(ids)) == len(ledger.list()) == 3
    ledger.verify()
    ledger.close()


def execute(url: str, *statements: str) -> None:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        engine.dispose()


@pytest.mark.parametrize("statement", ["UPDATE decisions SET reason = 'x'", "DELETE FROM decisions"])
def test_decisions_are_append_only(ledger: Ledger, url: str, statement: str) -> None:
    submit(ledger)
    with pytest.raises(DBAPIError, match="append-only"):
        execute(url, statement)
    ledger.verify()


def disarm(url: str) -> tuple[str, ...]:
    """Statements that remove the triggers, as an intruder with rights over the tables would."""
    if url.startswith("sqlite"):
        return "DROP TRIGGER decisions_no_update", "DROP TRIGGER decisions_no_delete"
    return ("DROP TRIGGER decisions_append_only ON decisions",)


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE decisions SET reason = 'she said so' WHERE seq = 3",
        "UPDATE decisions SET actor = 'ann' WHERE seq = 2",
        "UPDATE decisions SET at = '2020-01-01T00:00:00.000+00:00' WHERE seq = 1",
        "UPDATE decisions SET evidence_sha256 = 'e' WHERE seq = 3",
        "DELETE FROM decisions WHERE seq = 1",
        "DELETE FROM decisions WHERE seq = 2",
        "DELETE FROM decisions WHERE seq = 3",
        "UPDATE candidates SET state = 'approved' WHERE state = 'pending'",
        "UPDATE candidates SET state = 'pending' WHERE state = 'approved'",
        "UPDATE candidates SET metrics = '{\"auc\": 1.0}'",
        "UPDATE candidates SET model_sha256 = 'another model'",
        "UPDATE candidates SET evidence = '{}'",
        "UPDATE candidates SET decision = '{\"passed\": true}'",
        'UPDATE candidates SET facts = \'{"artifacts": {"model": "/evil"}}\'',
        "UPDATE candidates SET run_id = 'other'",
        "UPDATE candidates SET product = 'other'",
    ],
)
def test_tampering_is_found(ledger: Ledger, url: str, tampering: str) -> None:
    approved = submit(ledger, "a")
    pending = submit(ledger, "b")
    ledger.approve(approved.id, actor="bob", reason="good")
    ledger.verify()
    execute(url, *disarm(url), tampering)
    with pytest.raises(DataError, match="was altered at"):
        ledger.verify()
    for candidate in (approved.id, pending.id):
        with pytest.raises((DataError, NotApproved)):
            require_approved(ledger, candidate, {})


def test_hashes_computed_anew_fit_and_only_a_head_kept_elsewhere_shows_it(ledger: Ledger, url: str) -> None:
    candidate = submit(ledger)
    ledger.approve(candidate.id, actor="bob", reason="good")
    head = ledger.verify()
    forged = {**ledger.checked(candidate.id)[1][-1].as_dict(), "reason": "forged"}
    execute(url, *disarm(url), f"UPDATE decisions SET reason = 'forged', hash = '{chain.link(forged)}' WHERE seq = 2")
    assert require_approved(ledger, candidate.id, {}).state == "approved", "the chain alone can't tell"
    assert ledger.verify() != head


def test_a_slipped_in_approval_is_found(ledger: Ledger, url: str) -> None:
    refused = submit(ledger, "bad", auc=0.1)
    last = ledger.checked(refused.id)[1][-1]
    execute(
        url,
        f"UPDATE candidates SET state = 'approved' WHERE id = '{refused.id}'",
        "INSERT INTO decisions (seq, candidate_id, from_state, to_state, actor, reason, evidence_sha256, "
        "record_sha256, at, previous, hash) SELECT 2, candidate_id, 'refused', 'approved', 'eve', 'x', "
        f"evidence_sha256, record_sha256, at, hash, '{'0' * 64}' FROM decisions WHERE seq = {last.seq}",
    )
    with pytest.raises(DataError, match="altered at decision 2"):
        require_approved(ledger, refused.id, {})


def test_unknown_state_is_refused_by_the_database(ledger: Ledger, url: str) -> None:
    submit(ledger)
    with pytest.raises(DBAPIError, match="candidates_state"):
        execute(url, "UPDATE candidates SET state = 'blessed'")


def test_a_database_that_is_down(postgres: Postgres, tmp_path: Path) -> None:
    secret = "hunter2/%&"
    for url in (
        f"postgresql://ifas:hunter2%2F%25%26@/ledger?host={tmp_path}",
        "postgresql+psycopg://ifas:hunter2%2F%25%26@127.0.0.1:1/ledger",
        "postgres://ifas:hunter2%2F%25%26@127.0.0.1:1/ledger",
        "postgresql://ifas@127.0.0.1:1/ledger?password=hunter2%2F%25%26",
        postgres.url(database="there_is_none", password=secret),
    ):
        with pytest.raises(ConfigError, match="can't be used") as caught:
            Ledger(url)
        assert "IFAS_LEDGER" in caught.value.fix
        # A server that is away comes back, and a cluster tries again; a database that nobody made does not.
        assert caught.value.repeat is ("127.0.0.1:1" in url)
        for shown in (str(caught.value), repr(caught.value)):
            assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("not a url hunter2", "is not a database URL"),
        ("mysql://u:hunter2@h/d", "can't be kept in 'mysql'"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_urls_that_are_no_ledger(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Ledger(url)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("these are my notes, not a database" * 100)
    with pytest.raises(ConfigError, match="not a database"):
        Ledger(f"sqlite:///{path}")
    assert path.read_text().startswith("these are my notes")
    with pytest.raises(ConfigError, match="folder of ledger"):
        Ledger(f"sqlite:///{path}/sub/ledger.db")


def test_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    submit(ledger)
    with ledger._database.reading() as session:
        session.execute(text("PRAGMA max_page_count = 1"))  # no page more than there are
    with pytest.raises(MachineError, match="disk is full") as caught:
        for number in range(100):
            submit(ledger, str(number), facts={"long": "x" * 2000})
    assert caught.value.fix.startswith("free space")
    assert caught.value.repeat
    ledger.close()


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(f"sqlite:///{path}")
    candidate = submit(ledger)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        assert ledger.get(candidate.id).state == "pending"
    finally:
        writer.rollback()
        writer.close()
        ledger.close()
