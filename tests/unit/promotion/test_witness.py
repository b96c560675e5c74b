"""An attacker who may write to the whole database, and knows how its hashes are made, meets heads kept elsewhere."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ifas.core.errors import ConfigError, DataError
from ifas.promotion import chain, witness
from ifas.promotion.approval import require_approved
from ifas.promotion.ledger import Ledger
from ifas.promotion.policy import load_policy
from ifas.promotion.products import Products
from tests.servers import s3_server
from tests.unit.promotion.test_ledger import disarm, execute, submit


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere"


@pytest.fixture
def witnessed(url: str, kept: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setattr(witness, "PAUSES", (0.0, 0.1))
    opened = Ledger(url, str(kept))
    yield opened
    opened.close()


def rejected(ledger: Ledger) -> str:
    """A ledger in which a person rejected one candidate and approved another."""
    bad, good = submit(ledger, "bad"), submit(ledger, "good")
    ledger.reject(bad.id, actor="ann", reason="it lets masks in")
    ledger.approve(good.id, actor="ann", reason="good")
    ledger.verify()
    return bad.id


def test_every_decision_has_its_head_and_the_control_passes(witnessed: Ledger, kept: Path) -> None:
    rejected(witnessed)
    assert [file.name[:18] for file in sorted(kept.iterdir())] == [f"decisions-{n:08d}" for n in range(1, 5)]
    assert "ann: " in sorted(kept.iterdir())[2].read_text()
    assert witnessed.without_head() == []


def test_a_tail_that_was_cut_off_is_found(witnessed: Ledger, url: str) -> None:
    """The rejection is erased, with all that it changed."""
    bad = rejected(witnessed)
    execute(
        url,
        *disarm(url),
        "DELETE FROM decisions WHERE seq > 2",
        "UPDATE candidates SET state = 'pending'",
    )
    Ledger(url).verify()  # the chain alone can't tell
    for ask in (witnessed.verify, lambda: require_approved(witnessed, bad, {}), witnessed.without_head):
        with pytest.raises(DataError, match=r"entry 3 of its decisions, which file://.* has kept, is gone"):
            ask()
    Ledger(url).approve(bad, actor="eve", reason="good")
    with pytest.raises(DataError, match="is another one now"):
        require_approved(witnessed, bad, {})


def test_a_ledger_that_was_written_anew_is_found(witnessed: Ledger, url: str, tmp_path: Path) -> None:
    """Every row and hash is that of an honest ledger, of another story."""
    bad = rejected(witnessed)
    forged = Ledger(f"sqlite:///{tmp_path / 'forged.db'}")
    submit(forged, "bad")
    submit(forged, "good")
    forged.approve(bad, actor="ann", reason="good")
    forged.verify()
    again = Ledger(f"sqlite:///{tmp_path / 'forged.db'}", str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match="another one now"):
        require_approved(again, bad, {})


def test_an_approval_written_into_the_database_has_no_head(witnessed: Ledger, url: str) -> None:
    pending = submit(witnessed)
    Ledger(url).approve(pending.id, actor="ann", reason="by who knows how hashes are made")
    Ledger(url).verify()
    with pytest.raises(DataError, match=rf"entry 2 .* \(ann: {pending.id} is approved\) has no head") as caught:
        require_approved(witnessed, pending.id, {})
    assert "ifas ledger keep" in caught.value.fix
    # A process that was killed after its commit leaves the same: a person looks, and says so.
    missing = witnessed.without_head()
    assert [head.seq for head in missing] == [2]
    witnessed.keep(missing)
    assert require_approved(witnessed, pending.id, {}).actor == "ann"


def test_a_ledger_of_before_there_was_a_witness(url: str, kept: Path) -> None:
    plain = Ledger(url)
    rejected(plain)
    with pytest.raises(ConfigError, match="no witness is set"):
        plain.without_head()
    later = Ledger(url, str(kept))
    missing = later.without_head()
    assert [head.seq for head in missing] == [1, 2, 3, 4]
    later.keep(missing[:3])
    with pytest.raises(DataError, match=r"entry 4 of the decisions .* has no head"):
        later.verify()
    later.keep(missing)
    later.verify()


def test_heads_are_not_given_to_a_ledger_that_was_altered(witnessed: Ledger, url: str, kept: Path) -> None:
    rejected(witnessed)
    shutil.rmtree(kept)
    execute(url, *disarm(url), "UPDATE decisions SET reason = 'she said so' WHERE seq = 3")
    with pytest.raises(DataError, match="altered at decision 3"):
        witnessed.without_head()
    assert not kept.exists()


def test_a_product_that_was_written_anew_is_found(url: str, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "PAUSES", (0.0, 0.1))
    strict, permissive = load_policy("builtin:strict"), load_policy("builtin:permissive")
    honest = Products(url, str(kept))
    honest.register("door", strict, by_policy=True, actor="admin", reason="a door")
    assert honest.get("door") is not None
    eve = Products(url)
    eve.register("door", permissive, by_policy=True, actor="admin", reason="a door")
    with pytest.raises(DataError, match=r"entry 2 of the products .* has no head"):
        honest.get("door")
    # Nor may anything be approved by it.
    ledger = Ledger(url, str(kept))
    candidate = submit(ledger, product="door", evidence={"policy": permissive.sha256})
    for act in (lambda: ledger.approve(candidate.id, actor="ann", reason="good"), lambda: ledger.product("door")):
        with pytest.raises(DataError, match=r"entry 2 of the products .* has no head"):
            act()
    missing = honest.without_head()
    assert [head.seq for head in missing] == [2]
    Ledger(url, str(kept)).keep(missing)
    assert honest.get("door") == eve.get("door")


def test_two_ledgers_have_no_common_witness_and_the_first_stays_whole(kept: Path, tmp_path: Path) -> None:
    first = Ledger(f"sqlite:///{tmp_path / 'first.db'}", str(kept))
    rejected(first)
    second = Ledger(f"sqlite:///{tmp_path / 'second.db'}", str(kept))
    with pytest.raises(DataError, match=r"stands .* not kept: .*it is the witness of another ledger"):
        submit(second, "other")
    first.verify()


def test_a_witness_that_is_away_for_a_moment(url: str, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decision stands, and the error tells how its head is kept later."""
    monkeypatch.setattr(witness, "PAUSES", (0.0, 0.1))
    ledger = Ledger(url, str(kept))
    candidate = submit(ledger)
    kept.rename(kept.with_name("hidden"))
    kept.write_text("not a folder")
    with pytest.raises(DataError, match=rf"entry 2 of the decisions stands \(ann: {candidate.id}") as caught:
        ledger.approve(candidate.id, actor="ann", reason="good")
    assert "ifas ledger keep " in caught.value.fix
    kept.unlink()
    kept.with_name("hidden").rename(kept)
    assert ledger.approve(candidate.id, actor="ann", reason="good").state == "approved"
    with pytest.raises(DataError, match="has no head"):
        require_approved(ledger, candidate.id, {})
    ledger.keep(ledger.without_head())
    assert require_approved(ledger, candidate.id, {}).state == "approved"


def test_a_witness_may_have_any_name(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "team heads #1 é"
    submit(Ledger(url, str(folder)))
    assert len(list(folder.iterdir())) == 1


def test_many_deciders_at_once_each_keep_theirs(url: str, kept: Path) -> None:
    candidates = [submit(Ledger(url, str(kept)), f"c{n}", product=f"p{n}").id for n in range(12)]

    def act(candidate: str) -> str:
        own = Ledger(url, str(kept))
        own.approve(candidate, actor="ann", reason="good")
        return require_approved(own, candidate, {}).state  # while others have committed, and not yet kept theirs

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(act, candidates)) == {"approved"}
    assert len(list(kept.iterdir())) == 24


def test_a_bucket_is_a_witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(tmp_path / "s3") as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        for name, value in store.env.items():
            monkeypatch.setenv(name, value)
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
        ledger = Ledger(url, f"s3://{store.bucket}/heads")
        bad = rejected(ledger)
        with sqlite3.connect(tmp_path / "ledger.db") as connection:
            connection.executescript(
                "DROP TRIGGER decisions_no_delete; DELETE FROM decisions WHERE seq > 2; "
                "UPDATE candidates SET state = 'pending';"
            )
        with pytest.raises(DataError, match="entry 3 of its decisions, which s3://"):
            require_approved(ledger, bad, {})


def test_hashes_made_anew_are_found(witnessed: Ledger, url: str) -> None:
    rejected(witnessed)
    entry = witnessed.checked(witnessed.champion("ifas").id)[1][-1].as_dict()
    forged = {**entry, "reason": "forged"}
    execute(url, *disarm(url), f"UPDATE decisions SET reason = 'forged', hash = '{chain.link(forged)}' WHERE seq = 4")
    Ledger(url).verify()
    with pytest.raises(DataError, match=r"entry 4 of its decisions, which .* is another one now"):
        witnessed.verify()
