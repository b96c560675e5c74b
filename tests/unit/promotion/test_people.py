"""Who is no reviewer and wants a model to ship: with another's name, key or signature, or with SQL."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import create_engine, text

from ifas.core.errors import ConfigError, DataError, GateError
from ifas.core.files import write_json
from ifas.promotion import chain, clock, deciding, statements
from ifas.promotion.approval import approval_of, require_approved
from ifas.promotion.candidate import Candidate
from ifas.promotion.ledger import Ledger
from ifas.promotion.offline import verify_record
from ifas.promotion.people import DECISION, People, read
from ifas.promotion.products import Product, Products, link
from tests.unit.promotion.reviewers import Keys
from tests.unit.promotion.test_approval import POLICY, submit


@pytest.fixture
def door(url: str, keys: Keys) -> Callable[..., Product]:
    """Registers the product `door`, signed by the administrator; ann and bob decide about it."""

    def register(*, by_policy: bool = False, names: tuple[str, ...] = ("ann", "bob"), **rules: Any) -> Product:
        products = Products(url, "", keys.public("admin"))
        people = keys.people(*names, **rules)
        made = products.register(
            "door", POLICY, by_policy=by_policy, actor="adm", reason="r", people=people, key=keys.private("admin")
        )
        products.close()
        return made

    return register


def states(ledger: Ledger, candidate: Candidate) -> list[str]:
    return [entry.to_state for entry in ledger.checked(candidate.id)[1]]


def run_sql(url: str, *statements: str, **values: Any) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement), values)
    engine.dispose()


def test_only_a_reviewers_own_key_decides(ledger: Ledger, door: Callable[..., Product], keys: Keys) -> None:
    door()
    one = submit(ledger, "one", 0.9)
    said = {"reason": "good"}
    for act in (ledger.approve, ledger.reject):
        with pytest.raises(GateError, match=r"reviewers \(ann, bob\), who sign"):
            act(one.id, actor="ann", **said)
        with pytest.raises(GateError, match="is of no reviewer of product door"):
            act(one.id, actor="ann", key=keys.private("eve"), **said)
        with pytest.raises(GateError, match="does not speak for ann, it does for bob"):
            act(one.id, actor="ann", key=keys.private("bob"), **said)
        with pytest.raises(ConfigError, match="can't be used"):
            act(one.id, actor="ann", key="nowhere.pem", **said)
    with pytest.raises(GateError, match="approved by people, not by its policy"):
        ledger.approve(one.id, actor="policy", **said)
    assert states(ledger, one) == ["pending"]
    ledger.approve(one.id, actor="", key=keys.private("ann"), **said)
    approval = approval_of(ledger, one.id)
    assert (approval.state, approval.actor) == ("approved", "ann")
    (envelope,) = approval.statements
    assert set(envelope) >= {"payload", "payloadType", "signatures"}
    assert "keyid" in envelope["signatures"][0]


def test_a_key_is_for_products_with_reviewers(ledger: Ledger, keys: Keys) -> None:
    with pytest.raises(GateError, match="has no reviewers"):
        ledger.approve(submit(ledger, "one", 0.9).id, actor="", reason="r", key=keys.private("ann"))


def test_two_must_approve_and_nobody_counts_twice(ledger: Ledger, door: Callable[..., Product], keys: Keys) -> None:
    door(approvals=2)
    one = submit(ledger, "one", 0.9)
    for _ in range(3):
        assert ledger.approve(one.id, actor="ann", reason="good", key=keys.private("ann")).state == "pending"
    assert states(ledger, one) == ["pending", "pending"]
    with pytest.raises(GateError, match="not approved"):
        require_approved(ledger, one.id, {})
    assert ledger.approve(one.id, actor="bob", reason="me too", key=keys.private("bob")).state == "approved"
    approval = approval_of(ledger, one.id)
    assert (approval.actor, approval.reason) == ("ann, bob", "good; me too")
    assert len(approval.statements) == 2

    # One who is no reviewer any more does not count any more.
    two = submit(ledger, "two", 0.95, ledger.get(one.id))
    ledger.approve(two.id, actor="ann", reason="good", key=keys.private("ann"))
    door(names=("bob", "cem"), approvals=2)
    assert ledger.approve(two.id, actor="bob", reason="good", key=keys.private("bob")).state == "pending"
    assert ledger.approve(two.id, actor="cem", reason="good", key=keys.private("cem")).state == "approved"
    ledger.verify()


def test_a_page_that_signs_for_those_who_signed_in(ledger: Ledger, url: str, keys: Keys) -> None:
    people = People(reviewers={name: [keys.public("page")] for name in ("ann", "bob")}, approvals=2)
    products = Products(url)
    products.register("door", POLICY, by_policy=False, actor="adm", reason="r", people=people)
    products.close()
    one = submit(ledger, "one", 0.9)
    with pytest.raises(GateError, match="speaks for ann, bob"):
        ledger.approve(one.id, actor="", reason="good", key=keys.private("page"))
    ledger.approve(one.id, actor="ann", reason="good", key=keys.private("page"))
    assert ledger.approve(one.id, actor="bob", reason="good", key=keys.private("page")).state == "approved"


def test_who_submits_does_not_approve(ledger: Ledger, door: Callable[..., Product], keys: Keys) -> None:
    door()
    one = submit(ledger, "one", 0.9, submitter="ann (unverified)")
    with pytest.raises(GateError, match="ann submitted candidate"):
        ledger.approve(one.id, actor="ann", reason="mine is best", key=keys.private("ann"))
    assert ledger.approve(one.id, actor="bob", reason="good", key=keys.private("bob")).state == "approved"
    door(submitter_may_approve=True)
    two = submit(ledger, "two", 0.95, ledger.get(one.id), submitter="ann (unverified)")
    assert ledger.approve(two.id, actor="ann", reason="good", key=keys.private("ann")).state == "approved"


def test_an_override_is_a_role_of_its_own(ledger: Ledger, door: Callable[..., Product], keys: Keys) -> None:
    bad = submit(ledger, "bad", 0.1)
    with pytest.raises(GateError, match="not registered, so nobody may override"):
        ledger.approve(bad.id, actor="ann", reason="I insist", override=True)
    door(overriders=["bob"])
    bad = submit(ledger, "bad", 0.2)
    assert bad.state == "refused"
    with pytest.raises(GateError, match="the gate refused it"):
        ledger.approve(bad.id, actor="bob", reason="I insist", key=keys.private("bob"))
    with pytest.raises(GateError, match="ann may not approve what the gate refused"):
        ledger.approve(bad.id, actor="ann", reason="I insist", key=keys.private("ann"), override=True)
    done = ledger.approve(bad.id, actor="bob", reason="a demo stand", key=keys.private("bob"), override=True)
    assert done.state == "approved"
    assert states(ledger, bad) == ["refused", "approved"]
    fine = submit(ledger, "fine", 0.9, ledger.get(bad.id))
    with pytest.raises(GateError, match="an override is for refused ones"):
        ledger.approve(fine.id, actor="bob", reason="I insist", key=keys.private("bob"), override=True)


def test_a_candidate_that_waits_for_too_long_expires(
    ledger: Ledger, door: Callable[..., Product], keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    door(pending_days=30)
    old, other = submit(ledger, "old", 0.9), submit(ledger, "other", 0.9)
    later = datetime.now(UTC) + timedelta(days=31)
    monkeypatch.setattr(clock, "now", lambda: later)
    monkeypatch.setattr(deciding, "now", lambda: later)
    with pytest.raises(GateError, match=f"{old.id} is expired: it waited for too long"):
        ledger.approve(old.id, actor="ann", reason="good", key=keys.private("ann"))
    assert {ledger.get(one.id).state for one in (old, other)} == {"expired"}, "kept, though the call failed"
    assert submit(ledger, "new", 0.9).state == "pending"
    ledger.verify()


def test_an_approval_is_taken_back_and_the_one_before_is_champion_again(
    ledger: Ledger, door: Callable[..., Product], keys: Keys
) -> None:
    door()
    key, said = keys.private("ann"), {"actor": "ann", "reason": "r"}
    first = submit(ledger, "first", 0.8)
    ledger.approve(first.id, **said, key=key)
    second = submit(ledger, "second", 0.9, ledger.get(first.id))
    ledger.approve(second.id, **said, key=key)
    assert states(ledger, first) == ["pending", "approved", "superseded"]
    with pytest.raises(GateError, match="not approved"):
        require_approved(ledger, first.id, {})
    with pytest.raises(GateError, match="who sign"):
        ledger.revoke(second.id, **said)
    assert ledger.revoke(second.id, **said, key=key).state == "revoked"
    champion = ledger.champion("door")
    assert champion is not None
    assert champion.id == first.id
    assert states(ledger, first)[-1] == "approved"
    assert ledger.revoke(first.id, **said, key=key).state == "revoked"
    assert ledger.champion("door") is None
    for one in (first, second):
        with pytest.raises(GateError, match="is revoked"):
            ledger.approve(one.id, **said, key=key)
    ledger.verify()


def forged(ledger: Ledger, url: str, candidate: Candidate, statement: Any = None, **changes: Any) -> None:
    """An approval written into the database by who knows how the hashes are made."""
    with ledger._database.reading() as session:
        last = session.execute(text("SELECT seq, hash, at FROM decisions ORDER BY seq DESC LIMIT 1")).one()
    fields = {
        "seq": last.seq + 1,
        "candidate_id": candidate.id,
        "from_state": candidate.state,
        "to_state": "approved",
        "actor": "ann",
        "reason": "good",
        "evidence_sha256": candidate.evidence_sha256,
        "record_sha256": chain.record(candidate.as_dict()),
        "at": (datetime.fromisoformat(last.at) + timedelta(seconds=1)).isoformat(timespec="milliseconds"),
        "previous": last.hash,
        **changes,
    }
    sealed = chain.link({**fields, "statement": statement})
    columns = ", ".join((*fields, "hash", "statement"))
    values = ", ".join(f":{name}" for name in (*fields, "hash", "statement"))
    run_sql(
        url,
        f"INSERT INTO decisions ({columns}) VALUES ({values})",
        **fields,
        hash=sealed,
        statement=json.dumps(statement) if statement else None,
    )
    run_sql(url, f"UPDATE candidates SET state = 'approved' WHERE id = '{candidate.id}'")


def test_an_approval_by_sql_lacks_the_signature(ledger: Ledger, url: str, door: Callable[..., Product]) -> None:
    door()
    one = submit(ledger, "one", 0.9)
    forged(ledger, url, one)
    with pytest.raises(DataError, match="door has reviewers, and none signed it"):
        require_approved(ledger, one.id, {})


def test_nor_does_a_date_before_the_registration_help(ledger: Ledger, url: str, door: Callable[..., Product]) -> None:
    one = submit(ledger, "one", 0.9)
    door()
    forged(ledger, url, one, at=(datetime.fromisoformat(one.created) + timedelta(milliseconds=1)).isoformat())
    with pytest.raises(DataError, match="door has reviewers, and none signed it"):
        ledger.verify()


def test_nor_a_chain_written_anew_from_before_the_registration(
    ledger: Ledger, url: str, door: Callable[..., Product], keys: Keys
) -> None:
    one = submit(ledger, "one", 0.9)
    made = door()
    assert made.follows == {"seq": 1, "hash": ledger.checked(one.id)[1][0].hash}
    drop = ["decisions_no_update", "decisions_no_delete"] if url.startswith("sqlite") else []
    run_sql(url, *([f"DROP TRIGGER {name}" for name in drop] or ["DROP TRIGGER decisions_append_only ON decisions"]))
    (first,) = ledger.checked(one.id)[1]
    fields = {**first.as_dict(), "actor": "eve"}
    run_sql(url, "UPDATE decisions SET actor = 'eve', hash = :hash", hash=chain.link(fields))
    with pytest.raises(DataError, match="not the one that a registration followed"):
        ledger.verify()


def test_nor_does_it_help_to_remove_the_product(
    ledger: Ledger, url: str, door: Callable[..., Product], keys: Keys
) -> None:
    """For who knows that there is an administrator."""
    door()
    one = submit(ledger, "one", 0.9)
    drop = ["products_no_update", "products_no_delete"] if url.startswith("sqlite") else []
    run_sql(url, *([f"DROP TRIGGER {name}" for name in drop] or ["DROP TRIGGER products_append_only ON products"]))
    run_sql(url, "DELETE FROM products")
    careful = Ledger(url, "", keys.public("admin"))
    with pytest.raises(GateError, match="not registered by the ledger's administrator"):
        careful.approve(one.id, actor="eve", reason="nobody asks")
    ledger.approve(one.id, actor="eve", reason="nobody asks")
    with pytest.raises(GateError, match="not registered by the ledger's administrator"):
        require_approved(careful, one.id, {})
    careful.close()


@pytest.mark.parametrize("actor", ["ledger", "policy", "gate"])
def test_nor_is_it_one_in_the_name_of_the_software(
    ledger: Ledger, url: str, door: Callable[..., Product], actor: str
) -> None:
    door()
    one, bad = submit(ledger, "one", 0.9), submit(ledger, "bad", 0.1)
    for candidate in (bad, one):
        with pytest.raises(DataError, match=r"none signed it|is not signed"):
            forged(ledger, url, candidate, actor=actor)
            ledger.verify()


def test_a_signature_is_for_one_candidate(ledger: Ledger, url: str, door: Callable[..., Product], keys: Keys) -> None:
    door()
    good = submit(ledger, "good", 0.9)
    ledger.approve(good.id, actor="ann", reason="good", key=keys.private("ann"))
    other = submit(ledger, "other", 0.9, ledger.get(good.id))
    forged(ledger, url, other, approval_of(ledger, good.id).statements[0])
    with pytest.raises(DataError, match="its signature is about another candidate"):
        ledger.verify()


def test_a_rejection_can_not_be_turned_into_an_approval(
    ledger: Ledger, url: str, door: Callable[..., Product], keys: Keys
) -> None:
    door(approvals=2)
    one = submit(ledger, "one", 0.9)
    ledger.approve(one.id, actor="ann", reason="good", key=keys.private("ann"))
    forged(ledger, url, ledger.get(one.id), ledger.checked(one.id)[1][-1].statement)
    with pytest.raises(DataError, match="its signature is about another time"):
        ledger.verify()


def test_a_reviewer_added_by_sql_is_found_by_who_has_the_administrators_key(
    ledger: Ledger, url: str, door: Callable[..., Product], keys: Keys
) -> None:
    made = door()
    fields = {
        **made.model_dump(),
        "seq": 2,
        "people": keys.people("eve").model_dump(),
        "previous": made.hash,
        "at": (datetime.fromisoformat(made.at) + timedelta(seconds=1)).isoformat(timespec="milliseconds"),
    }
    own = json.loads(json.dumps(fields))
    names = [name for name in fields if name != "hash"]
    run_sql(
        url,
        f"INSERT INTO products ({', '.join(names)}, hash) VALUES ({', '.join(f':{n}' for n in names)}, :hash)",
        **{name: json.dumps(own[name]) if isinstance(own[name], dict) else own[name] for name in names},
        hash=link(own),
    )
    one = submit(ledger, "one", 0.9)
    assert ledger.approve(one.id, actor="eve", reason="mine", key=keys.private("eve")).state == "approved"
    careful = Ledger(url, "", keys.public("admin"))
    for ask in (careful.verify, lambda: require_approved(careful, one.id, {})):
        with pytest.raises(DataError, match="was not signed by the administrator at entry 2"):
            ask()
    careful.close()


def test_only_the_administrator_registers(url: str, keys: Keys) -> None:
    products = Products(url, "", keys.public("admin"))
    for key in ("", keys.private("eve")):
        with pytest.raises(GateError, match="registered by its administrator"):
            products.register("door", POLICY, by_policy=True, actor="eve", reason="r", key=key)
    assert products.entries() == []
    products.close()


def test_a_product_that_nobody_could_approve_is_not_registered(url: str) -> None:
    products = Products(url)
    with pytest.raises(GateError, match="nobody could approve"):
        products.register("door", POLICY, by_policy=False, actor="adm", reason="r")
    products.close()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"reviewers": {}}, "at least 1"),
        ({"reviewers": {"ann": []}}, "needs a key"),
        ({"reviewers": {"ann, bob": ["x"]}}, "should match pattern"),
        ({"reviewers": {" ann": ["x"]}}, "should match pattern"),
        ({"overriders": ["ann"], "approvals": 2}, "2 approvals"),
        ({"reviewers": {"ann": ["no key"]}}, "the key of reviewer ann"),
        ({"reviewers": {"policy": ["x"]}}, "no person's name"),
        ({"approvals": 2}, "2 approvals are asked of 1 reviewers"),
        ({"overriders": ["eve"]}, "overriders who are no reviewers: eve"),
    ],
)
def test_people_who_could_not_decide(keys: Keys, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        People.model_validate({"reviewers": {"ann": [keys.public("ann")]}, **wrong})


def test_time_never_runs_backwards(
    ledger: Ledger, door: Callable[..., Product], keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = submit(ledger, "one", 0.9)
    monkeypatch.setattr(clock, "now", lambda: datetime(2020, 1, 1, tzinfo=UTC))
    made = door()
    assert made.at > one.created
    ledger.reject(one.id, actor="ann", reason="bad", key=keys.private("ann"))
    first, second = ledger.checked(one.id)[1]
    assert first.at < made.at < second.at
    ledger.verify()


def test_a_stranger_checks_a_record_with_the_administrators_key(
    ledger: Ledger, url: str, door: Callable[..., Product], keys: Keys, tmp_path: Path
) -> None:
    door(approvals=2)
    one = submit(ledger, "one", 0.9)
    for name in ("ann", "bob"):
        ledger.approve(one.id, actor=name, reason=f"{name} looked", key=keys.private(name))
    products = Products(url)
    record = {
        **ledger.get(one.id).as_dict(),
        "history": [entry.as_dict() for entry in ledger.checked(one.id)[1]],
        "registrations": [entry.model_dump(mode="json") for entry in products.entries()],
    }
    products.close()
    file, admin, eve = tmp_path / "record.json", tmp_path / "admin.pub", tmp_path / "eve.pub"
    keys.private("eve")

    def said(changed: Callable[[dict[str, Any]], object] = lambda _: None, key: Path = admin) -> str:
        copy = json.loads(json.dumps(record))
        changed(copy)
        write_json(file, copy)
        return verify_record(file, key).summary

    assert "is approved; approved by ann, bob, by registration 1 of" in said()
    with pytest.raises(GateError, match="is not signed by the key in"):
        said(key=eve)
    attacks: dict[str, Callable[[dict[str, Any]], object]] = {
        "record was changed": lambda r: r.update(model_sha256="0" * 64),
        "record was changed after": lambda r: r["evidence"].update(model="0" * 64),
        "does not fit its hash": lambda r: r["history"][1].update(actor="bob"),
        "fewer did": lambda r: r["history"].pop(1),
        "its decisions say pending": lambda r: r["history"].pop(),
        "has no decisions": lambda r: r["history"].clear(),
        "not signed by the key": lambda r: r["registrations"][0]["people"].update(approvals=1),
        "nothing proves": lambda r: r["registrations"].clear(),
        "no record": lambda r: r.pop("facts"),
    }
    for words, attack in attacks.items():
        with pytest.raises((GateError, DataError), match=words):
            said(attack)


def entry_of(ledger: Ledger, candidate: Candidate) -> Any:
    return ledger.checked(candidate.id)[1][-1]


def test_a_payload_that_reads_two_ways_is_nobodys(ledger: Ledger, door: Callable[..., Product], keys: Keys) -> None:
    """Lenient base64 drops what url-safe base64 reads: one payload could name ann to one reader, bob to the other."""
    product = door()
    one = submit(ledger, "one", 0.9)
    ledger.approve(one.id, actor="bob", reason="r", key=keys.private("bob"))
    envelope = entry_of(ledger, one).statement
    people = product.parsed_people
    assert people is not None
    assert read(people, envelope).reviewer == "bob"
    for spelled in ("-", "_", "-_-_"):
        assert statements.unverified({**envelope, "payload": spelled + envelope["payload"]}) == {}
    as_ann = json.loads(base64.b64decode(envelope["payload"]))
    as_ann["predicate"]["reviewer"] = "ann"
    forged_payload = base64.b64encode(json.dumps(as_ann).encode()).decode()
    with pytest.raises(GateError, match="not signed"):
        read(people, {**envelope, "payload": forged_payload})


def test_one_who_signs_for_another_is_found(door: Callable[..., Product], keys: Keys, ledger: Ledger) -> None:
    people = door().parsed_people
    assert people is not None
    one = submit(ledger, "one", 0.9)
    ledger.approve(one.id, actor="bob", reason="r", key=keys.private("bob"))
    decision = read(people, entry_of(ledger, one).statement).model_copy(update={"reviewer": "ann"})
    said = decision.model_dump(exclude={"record_sha256"})
    by_bob = statements.signed({f"candidate/{one.id}": decision.record_sha256}, DECISION, said, keys.private("bob"))
    with pytest.raises(GateError, match="not signed by the key"):
        read(people, by_bob)


def test_a_signature_in_a_place_that_asks_for_none_does_not_count(
    ledger: Ledger, url: str, door: Callable[..., Product], keys: Keys
) -> None:
    door(approvals=2)
    good, bad = submit(ledger, "good", 0.9), submit(ledger, "bad", 0.9)
    ledger.approve(good.id, actor="ann", reason="good", key=keys.private("ann"))
    statement = entry_of(ledger, good).statement
    forged(ledger, url, bad, statement, to_state="expired", actor="ledger")
    run_sql(url, f"UPDATE candidates SET state = 'expired' WHERE id = '{bad.id}'")
    with pytest.raises(DataError, match="bears a signature that belongs elsewhere"):
        ledger.verify()


@pytest.mark.parametrize("signed", [False, True])
def test_nobody_is_champion_again_without_a_revocation(
    ledger: Ledger, url: str, door: Callable[..., Product], keys: Keys, signed: bool
) -> None:
    door()
    key, said = keys.private("ann"), {"actor": "ann", "reason": "r"}
    first = submit(ledger, "first", 0.8)
    ledger.approve(first.id, **said, key=key)
    statement = entry_of(ledger, first).statement if signed else None
    second = submit(ledger, "second", 0.9, ledger.get(first.id))
    ledger.approve(second.id, **said, key=key)
    forged(ledger, url, ledger.get(first.id), statement, actor="ledger")
    with pytest.raises(DataError, match="no champion was revoked right before it"):
        ledger.verify()


def test_a_revocation_names_who_returns(ledger: Ledger, url: str, door: Callable[..., Product], keys: Keys) -> None:
    door()
    key, said = keys.private("ann"), {"actor": "ann", "reason": "r"}
    made: list[Candidate] = []
    for number in range(3):
        made.append(submit(ledger, str(number), 0.7 + number / 10, ledger.get(made[-1].id) if made else None))
        ledger.approve(made[-1].id, **said, key=key)
    ledger.revoke(made[2].id, **said, key=key)
    # The second returned. Somebody would rather have the first.
    ledger.revoke(made[1].id, **said, key=key)
    assert ledger.champion("door") == ledger.get(made[0].id)
    ledger.revoke(made[0].id, **said, key=key)
    fourth = submit(ledger, "3", 0.99)
    ledger.approve(fourth.id, **said, key=key)
    ledger.verify()


def test_who_returns_fulfils_what_the_product_asks_today(
    ledger: Ledger, url: str, door: Callable[..., Product], keys: Keys
) -> None:
    """Approved by the policy, when that was enough; two reviewers must approve by now."""
    products = Products(url, "", keys.public("admin"))
    products.register("door", POLICY, by_policy=True, actor="adm", reason="r", key=keys.private("admin"))
    products.close()
    first = submit(ledger, "first", 0.8)
    ledger.approve(first.id, actor="policy", reason="every rule passed")
    door(approvals=2)
    second = submit(ledger, "second", 0.9, ledger.get(first.id))
    for name in ("ann", "bob"):
        ledger.approve(second.id, actor=name, reason="good", key=keys.private(name))
    ledger.revoke(second.id, actor="ann", reason="bad", key=keys.private("ann"))
    assert ledger.champion("door") is None
    ledger.verify()


def test_figures_that_were_changed_are_not_what_was_signed(
    ledger: Ledger, url: str, door: Callable[..., Product], keys: Keys, tmp_path: Path
) -> None:
    """With every hash of the chain made anew, which needs no secret."""
    door()
    one = submit(ledger, "one", 0.6)
    ledger.approve(one.id, actor="ann", reason="good", key=keys.private("ann"))
    products = Products(url)
    changed = {**ledger.get(one.id).as_dict(), "metrics": {"slices": {"target": {"auc": {"value": 0.999, "n": 9}}}}}
    entries = [entry.as_dict() for entry in ledger.checked(one.id)[1]]
    previous = ""
    for entry in entries:
        entry |= {"record_sha256": chain.record(changed), "previous": previous}
        entry["hash"] = previous = chain.link(entry)
    registrations = [entry.model_dump(mode="json") for entry in products.entries()]
    products.close()
    write_json(tmp_path / "r.json", {**changed, "history": entries, "registrations": registrations})
    with pytest.raises(GateError, match="its signature is about another record"):
        verify_record(tmp_path / "r.json", tmp_path / "admin.pub")


def test_what_the_gate_refused_did_not_begin_as_pending(ledger: Ledger, url: str) -> None:
    bad = submit(ledger, "bad", 0.1)
    drop = ["decisions_no_update", "decisions_no_delete"] if url.startswith("sqlite") else []
    run_sql(url, *([f"DROP TRIGGER {n}" for n in drop] or ["DROP TRIGGER decisions_append_only ON decisions"]))
    (first,) = ledger.checked(bad.id)[1]
    again = {**first.as_dict(), "to_state": "pending"}
    run_sql(url, "UPDATE decisions SET to_state = 'pending', hash = :hash", hash=chain.link(again))
    run_sql(url, "UPDATE candidates SET state = 'pending'")
    with pytest.raises(DataError, match="it says pending, the gate's decision does not"):
        ledger.verify()


def test_a_ledger_for_tests_is_not_the_real_one(url: str, door: Callable[..., Product], keys: Keys) -> None:
    """Of the same administrator, so that every signature is right."""
    real = door().ledger
    assert real is not None
    Ledger(url, "", keys.public("admin"), real).verify()
    with pytest.raises(DataError, match=f"of another ledger, {real}"):
        Ledger(url, "", keys.public("admin"), "0" * 32).verify()


def test_a_private_key_is_never_shown(ledger: Ledger, door: Callable[..., Product], keys: Keys) -> None:
    door()
    secret = Path(keys.private("ann")).read_text()
    one = submit(ledger, "one", 0.9)
    for given in (secret, f"env:{secret}", f"# mine\n{secret}"):
        with pytest.raises(ConfigError, match="the key given as text") as caught:
            ledger.approve(one.id, actor="ann", reason="r", key=given)
        assert secret.splitlines()[1] not in str(caught.value)
        with pytest.raises(ConfigError) as caught:
            Ledger("sqlite:///x.db", "", given)
        assert secret.splitlines()[1] not in str(caught.value)


def test_an_administrator_comes_to_a_ledger_that_has_products(ledger: Ledger, url: str, keys: Keys) -> None:
    products = Products(url)
    people = keys.people("ann")
    given = {"by_policy": False, "actor": "adm", "reason": "r", "people": people}
    products.register("door", POLICY, **given)
    one = submit(ledger, "one", 0.9)
    careful = Ledger(url, "", keys.public("admin"))
    with pytest.raises(GateError, match="not registered by the ledger's administrator"):
        careful.approve(one.id, actor="ann", reason="r", key=keys.private("ann"))
    theirs = Products(url, "", keys.public("admin"))
    signed = theirs.register("door", POLICY, **given, key=keys.private("admin"))
    assert (signed.seq, theirs.register("door", POLICY, **given, key=keys.private("admin")).seq) == (2, 2)
    assert careful.approve(one.id, actor="ann", reason="r", key=keys.private("ann")).state == "approved"
    # From now on each one is signed.
    products.register("door", POLICY, **{**given, "people": keys.people("eve")})
    with pytest.raises(DataError, match="not signed by the administrator at entry 3"):
        careful.verify()
    for one_ in (careful, theirs, products):
        one_.close()


def test_fewer_approvals_are_asked_than_when_she_approved(
    ledger: Ledger, door: Callable[..., Product], keys: Keys
) -> None:
    door(approvals=2)
    one = submit(ledger, "one", 0.9)
    assert ledger.approve(one.id, actor="ann", reason="r", key=keys.private("ann")).state == "pending"
    door(approvals=1)
    assert ledger.approve(one.id, actor="ann", reason="r", key=keys.private("ann")).state == "approved"
    ledger.verify()


@pytest.mark.parametrize("seqs", [(0, 0), (-5, -4), (1, 2)])
def test_an_approval_of_before_the_registration_is_no_proof(
    ledger: Ledger, url: str, door: Callable[..., Product], keys: Keys, tmp_path: Path, seqs: tuple[int, int]
) -> None:
    one = submit(ledger, "one", 0.9)
    submit(ledger, "two", 0.9)
    door()
    record = ledger.get(one.id).as_dict() | {"state": "approved"}
    entries, previous, state = [], "", ""
    for seq, to_state in zip(seqs, ("pending", "approved"), strict=True):
        entry = {**ledger.checked(one.id)[1][0].as_dict(), "seq": seq, "from_state": state, "to_state": to_state}
        entry["previous"], state = previous, to_state
        entry["hash"] = previous = chain.link(entry)
        entries.append(entry)
    products = Products(url)
    registrations = [entry.model_dump(mode="json") for entry in products.entries()]
    products.close()
    write_json(tmp_path / "r.json", {**record, "history": entries, "registrations": registrations})
    with pytest.raises(GateError, match=r"before the product was registered|or its place"):
        verify_record(tmp_path / "r.json", tmp_path / "admin.pub")


def test_a_person_is_not_the_policy(ledger: Ledger, door: Callable[..., Product], keys: Keys) -> None:
    """Whose product its policy may approve, too: who brings a key is held to it."""
    door(by_policy=True)
    one = submit(ledger, "one", 0.9)
    for name in ("eve", "ann"):
        with pytest.raises(GateError, match=r"is of no reviewer|does not speak for policy"):
            ledger.approve(one.id, actor="policy", reason="r", key=keys.private(name))
    assert states(ledger, one) == ["pending"]
    assert ledger.approve(one.id, actor="policy", reason="every rule passed").state == "approved"
