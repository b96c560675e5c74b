"""Who wants a model to ship that no gate of its product let through: with another's result, or by SQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from ifas.core.config import RunConfig
from ifas.core.errors import ConfigError, DataError, GateError
from ifas.core.files import write_json
from ifas.promotion import chain, statements
from ifas.promotion.again import judge_again
from ifas.promotion.approval import approval_of, require_approved
from ifas.promotion.candidate import Candidate, Entry
from ifas.promotion.gates import RESULT, Result, require_key
from ifas.promotion.ledger import Ledger
from ifas.promotion.offline import verify_record
from ifas.promotion.products import Product, Products
from ifas.steps.ledger import gate_key
from tests.unit.promotion.reviewers import Keys
from tests.unit.promotion.test_approval import POLICY, submit
from tests.unit.promotion.test_ledger import disarm

Register = Callable[..., Product]


@pytest.fixture
def door(url: str, keys: Keys) -> Register:
    """Registers the product `door`, signed by the administrator, with the gate `cluster`."""

    def register(
        *, by_policy: bool = False, gates: tuple[str, ...] = ("cluster",), people: bool = True, **rules: Any
    ) -> Product:
        products = Products(url, "", keys.public("admin"))
        made = products.register(
            "door",
            POLICY,
            by_policy=by_policy,
            actor="adm",
            reason="r",
            people=keys.people("ann", "bob", **rules) if people else None,
            gates={name: [keys.public(name)] for name in gates},
            key=keys.private("admin"),
        )
        products.close()
        return made

    return register


@pytest.fixture
def gate(url: str, keys: Keys) -> Ledger:
    """The ledger as a gate opens it that has the key `cluster`."""
    return Ledger(url, "", keys.public("admin"), gate_key=keys.private("cluster"))


@pytest.fixture
def people(url: str, keys: Keys) -> Ledger:
    """The ledger as reviewers open it."""
    return Ledger(url, "", keys.public("admin"))


def approve(ledger: Ledger, keys: Keys, candidate: Candidate, **how: Any) -> Candidate:
    return ledger.approve(candidate.id, actor="", reason="good", key=keys.private("ann"), **how)


def rewrite(url: str, seq: int, **changes: Any) -> None:
    """Changes an entry, and makes all hashes from there on anew."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in disarm(url):
            connection.execute(text(statement))
        rows = [dict(row) for row in connection.execute(text("SELECT * FROM decisions ORDER BY seq")).mappings()]
        head = ""
        for row in rows:
            row["statement"] = json.loads(row["statement"]) if isinstance(row["statement"], str) else row["statement"]
            row |= changes if row["seq"] == seq else {}
            row["previous"], row["hash"] = head, ""
            head = row["hash"] = chain.link(row)
            row["statement"] = None if row["statement"] is None else json.dumps(row["statement"])
            names = ("statement", "previous", "hash", "record_sha256", "evidence_sha256", "to_state", "from_state")
            sets = ", ".join(f"{name} = :{name}" for name in names)
            # Two steps: hashes are unique, and would meet each other.
            clear = "UPDATE decisions SET previous = :mark, hash = :mark WHERE seq = :seq"
            connection.execute(text(clear), {"mark": f"x{row['seq']}", "seq": row["seq"]})
            connection.execute(
                text(f"UPDATE decisions SET {sets} WHERE seq = :seq"),
                {**{name: row[name] for name in names}, "seq": row["seq"]},
            )
    engine.dispose()


def first(ledger: Ledger, candidate: Candidate) -> Entry:
    return ledger.checked(candidate.id)[1][0]


def test_a_signed_result_is_approved_and_goes_into_the_approval(
    door: Register, gate: Ledger, people: Ledger, keys: Keys
) -> None:
    door()
    one = submit(gate, "one", 0.9)
    assert approve(people, keys, one).state == "approved"
    approval = require_approved(people, one.id, {})
    kinds = [statements.unverified(envelope)["predicateType"].split("/")[-2] for envelope in approval.statements]
    assert kinds == ["gate", "decision"]
    assert approval.actor == "ann"
    said = statements.verified(approval.statements[0], RESULT, [keys.public("cluster")], "it")["predicate"]
    assert said["passed"]
    assert said["rules"][0]["margin"] == pytest.approx(0.4)
    people.verify()


def test_what_no_gate_signed_is_for_nobody_to_approve(door: Register, people: Ledger, keys: Keys) -> None:
    door()
    one = submit(people, "one", 0.9)
    assert one.state == "pending"
    with pytest.raises(GateError, match=r"no gate of product door \(cluster\) has signed") as caught:
        approve(people, keys, one)
    assert "gate.key" in caught.value.fix
    assert people.reject(one.id, actor="", reason="no", key=keys.private("ann")).state == "rejected"
    people.verify()


def test_nor_for_the_policy(door: Register, people: Ledger, gate: Ledger) -> None:
    door(by_policy=True, people=False)
    with pytest.raises(GateError, match="has signed the result"):
        people.approve(submit(people, "one", 0.9).id, actor="policy", reason="passed")
    assert gate.approve(submit(gate, "two", 0.9).id, actor="policy", reason="passed").state == "approved"
    people.verify()


def test_except_by_an_override(door: Register, people: Ledger, keys: Keys) -> None:
    door(overriders=["ann"])
    one = submit(people, "one", 0.9)
    with pytest.raises(GateError, match="bob may not approve"):
        people.approve(one.id, actor="", reason="r", key=keys.private("bob"), override=True)
    assert approve(people, keys, one, override=True).state == "approved"
    require_approved(people, one.id, {})


def test_an_override_is_not_for_what_a_gate_let_through(door: Register, gate: Ledger, keys: Keys) -> None:
    door(overriders=["ann"])
    with pytest.raises(GateError, match="an override is for refused ones"):
        approve(gate, keys, submit(gate, "one", 0.9), override=True)


def test_a_gate_with_another_key_records_nothing(door: Register, url: str, keys: Keys, people: Ledger) -> None:
    door()
    eve = Ledger(url, gate_key=keys.private("eve"))
    with pytest.raises(GateError, match=r"is of no gate of product door \(cluster\)"):
        submit(eve, "one", 0.9)
    assert list(people.list()) == []


def test_a_candidate_that_waits_for_a_signature_gets_it_when_its_gate_runs_again(
    door: Register, people: Ledger, gate: Ledger, keys: Keys
) -> None:
    door()
    one = submit(people, "one", 0.9)
    for _ in range(2):
        assert submit(gate, "one", 0.9).id == one.id
    assert [entry.to_state for entry in people.checked(one.id)[1]] == ["pending", "pending"]
    assert approve(people, keys, one).state == "approved"
    people.verify()


def test_a_result_that_was_edited_is_found(door: Register, url: str, gate: Ledger, people: Ledger, keys: Keys) -> None:
    """The figures that were judged are changed, and every hash is made anew: only the signature is not."""
    door()
    one = submit(gate, "one", 0.9)
    better = {"slices": {"target": {"auc": {"value": 0.99, "n": 900}}}}
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE candidates SET metrics = :metrics"), {"metrics": json.dumps(better)})
    engine.dispose()
    rewrite(url, 1, record_sha256=chain.record({**one.as_dict(), "metrics": better}))
    with pytest.raises(DataError, match="the gate's signature is about another record_sha256"):
        people.verify()
    with pytest.raises(DataError, match="altered"):
        approve(people, keys, one)


@pytest.mark.parametrize("how", ["of another candidate", "by another key", "removed"])
def test_a_signature_from_elsewhere_does_not_count(
    door: Register, url: str, gate: Ledger, people: Ledger, keys: Keys, how: str
) -> None:
    door()
    one, two = submit(gate, "one", 0.9), submit(gate, "two", 0.8)
    entry = first(people, one)
    result = Result.of(one, people.product("door"), entry.at, entry.previous)
    said = result.model_dump(mode="json", exclude={"record_sha256"})
    other = {
        "of another candidate": first(people, two).statement,
        "by another key": statements.signed(
            {f"candidate/{one.id}": result.record_sha256}, RESULT, said, keys.private("eve")
        ),
        "removed": None,
    }[how]
    rewrite(url, 1, statement=other)
    if how == "removed":
        # As one that a gate without a key recorded; but the next signature names the entry before it.
        with pytest.raises(DataError, match=r"decision 2 .* the gate's signature is about another follows"):
            approve(people, keys, one)
        return
    with pytest.raises(
        DataError, match=r"decision 1 .* gate's (signature is about another candidate|result: it is not)"
    ):
        approve(people, keys, one)


def test_one_of_an_older_registration_is_found(door: Register, url: str, gate: Ledger, people: Ledger) -> None:
    """A gate's result about the same record, from before the product was changed, put in place of a later one."""
    door()
    one = submit(gate, "one", 0.9)
    old = first(people, one).statement
    door(approvals=2)
    two = submit(gate, "two", 0.9)
    assert first(people, two).statement != old
    entry = first(people, two)
    stale = Result.of(two, None, entry.at, entry.previous).model_copy(
        update={"ledger": people.product("door").ledger, "registration": Products(url).entries()[0].hash}
    )
    said = stale.model_dump(mode="json", exclude={"record_sha256"})
    envelope = statements.signed({f"candidate/{two.id}": stale.record_sha256}, RESULT, said, gate.gate_key)
    rewrite(url, 2, statement=envelope)
    with pytest.raises(DataError, match=r"decision 2 .* is about another registration"):
        people.verify()


def test_a_gate_that_was_withdrawn_counts_for_nothing_new(
    door: Register, url: str, gate: Ledger, people: Ledger, keys: Keys
) -> None:
    """Its key was stolen, say: what it signed and nobody has approved waits for a gate of today."""
    door()
    one, two = submit(gate, "one", 0.9), submit(gate, "two", 0.95)
    approve(people, keys, one)
    door(gates=("other",))
    people.verify()
    with pytest.raises(GateError, match=r"no gate of product door \(other\)"):
        require_approved(people, one.id, {})
    with pytest.raises(GateError, match=r"no gate of product door \(other\)"):
        people.approve(two.id, actor="", reason="r", key=keys.private("bob"))
    door(gates=("cluster", "other"))
    require_approved(people, one.id, {})


def test_a_champion_returns_only_if_a_gate_of_today_signed_it(
    door: Register, gate: Ledger, people: Ledger, keys: Keys, url: str
) -> None:
    door(gates=())
    one = submit(people, "one", 0.8)
    approve(people, keys, one)
    door()
    two = submit(gate, "two", 0.9, one)
    approve(people, keys, two)
    people.revoke(two.id, actor="", reason="r", key=keys.private("ann"))
    assert people.champion("door") is None
    people.verify()


def test_an_approval_by_sql_of_a_product_that_its_policy_approves_needs_the_gates_signature(
    door: Register, url: str, people: Ledger
) -> None:
    door(by_policy=True, people=False)
    one = submit(people, "one", 0.9)
    plain = people.checked(one.id)[1][0].as_dict()
    entry = {**plain, "seq": 2, "from_state": "pending", "to_state": "approved", "actor": "policy"}
    entry |= {"previous": plain["hash"], "at": "2999-01-01T00:00:00.000+00:00"}
    entry["hash"] = chain.link(entry)
    names = [name for name in entry if name != "statement"]
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text(f"INSERT INTO decisions ({', '.join(names)}) VALUES ({', '.join(f':{one}' for one in names)})"),
            {name: entry[name] for name in names},
        )
        connection.execute(text("UPDATE candidates SET state = 'approved'"))
    engine.dispose()
    with pytest.raises(DataError, match=r"decision 2 .* has signed the result"):
        people.verify()


def test_a_stranger_sees_which_gate_let_it_through(
    door: Register, gate: Ledger, people: Ledger, keys: Keys, url: str, tmp_path: Path
) -> None:
    door()
    one = submit(gate, "one", 0.9)
    approve(people, keys, one)
    found, entries = people.checked(one.id)
    registrations = [entry.model_dump(mode="json") for entry in Products(url).entries()]
    record = {**found.as_dict(), "history": [one.as_dict() for one in entries], "registrations": registrations}
    admin = tmp_path / "admin.pub"
    admin.write_text(keys.public("admin"))
    write_json(tmp_path / "candidate.json", record)
    proved = verify_record(tmp_path / "candidate.json", admin)
    assert proved.gate == "cluster"
    assert "signed by gate cluster" in proved.summary
    record["history"][0]["statement"] = None
    record["history"][0]["hash"] = chain.link(record["history"][0])
    write_json(tmp_path / "candidate.json", record)
    with pytest.raises(GateError, match=r"no gate of product door .* has signed"):
        verify_record(tmp_path / "candidate.json", admin)


def test_a_result_of_a_product_without_gates_is_signed_and_asked_of_nobody(
    ledger: Ledger, url: str, keys: Keys
) -> None:
    one = submit(Ledger(url, gate_key=keys.private("cluster")), "one", 0.9)
    ledger.verify()
    assert approval_of(ledger, one.id).statements
    rewrite(url, 1, statement={"payload": "bm8=", "payloadType": "x", "signatures": []})
    with pytest.raises(DataError, match="bears a signature that belongs elsewhere"):
        ledger.verify()


def test_who_decides_can_not_judge_again_without_the_gates_key(
    door: Register, gate: Ledger, people: Ledger, keys: Keys
) -> None:
    door()
    one, two = submit(gate, "one", 0.8), submit(gate, "two", 0.9)
    approve(people, keys, one)
    with pytest.raises(GateError, match="no key of product door's gates is at hand"):
        judge_again(people, two.id)
    again = judge_again(gate, two.id)
    assert approve(people, keys, again).state == "approved"


def test_gates_are_part_of_what_the_administrator_signs(door: Register, url: str, people: Ledger, keys: Keys) -> None:
    door()
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in disarm(url):
            connection.execute(text(statement.replace("decisions", "products")))
        forged = json.dumps({"cluster": [keys.public("eve")]})
        connection.execute(text("UPDATE products SET gates = :gates"), {"gates": forged})
    engine.dispose()
    with pytest.raises(DataError, match="altered at entry 1 of its products"):
        people.verify()


def test_a_gate_whose_key_can_not_be_used_is_not_registered(url: str) -> None:
    with pytest.raises(ConfigError, match="no public key in PEM"):
        Products(url).register("door", POLICY, by_policy=True, actor="a", reason="r", gates={"cluster": ["no key"]})


def test_the_gates_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, keys: Keys, door: Register) -> None:
    config = RunConfig.model_validate({"gate": {"key": "file.pem"}})
    monkeypatch.delenv("IFAS_GATE_KEY", raising=False)
    assert gate_key(config) == "file.pem"
    monkeypatch.setenv("IFAS_GATE_KEY", "other.pem")
    assert gate_key(config) == "other.pem"
    monkeypatch.setenv("IFAS_GATE_KEY", Path(keys.private("cluster")).read_text())
    require_key(door(), gate_key(config))
