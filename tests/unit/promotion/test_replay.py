"""A policy tried on the candidates of a ledger: each against the champion of its time, and nothing is written."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_engine, text

from ifas.core.errors import DataError, GateError
from ifas.promotion.candidate import Candidate
from ifas.promotion.gate import decide
from ifas.promotion.ledger import Ledger
from ifas.promotion.policy import Policy, Rule
from ifas.promotion.replay import replay


def policy(least: float, **more: Any) -> Policy:
    return Policy(name="p", rules=[Rule(id="r", metric="auc", slice="target", reason="b", **{"min": least, **more})])


NO_LOSS = Policy(
    name="no-loss",
    rules=[Rule(id="n", metric="auc", slice="target", max_drop=0.0, missing_champion="pass", reason="b")],
)


def submit(ledger: Ledger, auc: float, champion: Candidate | None = None, product: str = "door") -> Candidate:
    metrics = {"slices": {"target": {"auc": {"value": auc, "n": 9}}}}
    return ledger.submit(
        product=product,
        run_id="r",
        evidence={"metrics": str(auc), "champion": champion.id if champion else ""},
        model_sha256="m",
        dataset_revision="d",
        metrics=metrics,
        decision=decide(metrics, champion.metrics if champion else None, policy(0.5)),
        facts={},
    )


def test_the_newest_of_one_product_are_decided_again(ledger: Ledger) -> None:
    made = [submit(ledger, auc) for auc in (0.4, 0.6, 0.8)]
    submit(ledger, 0.99, product="gate")
    found = replay(ledger, "door", policy(0.7), 20)
    assert [one.candidate.id for one in found] == [one.id for one in reversed(made)]
    assert [(one.passed_then, one.decision.passed) for one in found] == [(True, True), (True, False), (False, False)]
    assert found[1].failed == ["r (target)"]
    assert [one.candidate.id for one in replay(ledger, "door", policy(0.7), 1)] == [made[-1].id]


def test_each_is_compared_with_the_champion_of_its_time(ledger: Ledger) -> None:
    first = submit(ledger, 0.7)
    ledger.approve(first.id, actor="ann", reason="good")
    worse = submit(ledger, 0.6, first)
    better = submit(ledger, 0.9, first)
    ledger.approve(better.id, actor="ann", reason="better")
    found = {one.candidate.id: one.decision for one in replay(ledger, "door", NO_LOSS, 20)}
    assert {name: decision.passed for name, decision in found.items()} == {
        first.id: True,
        worse.id: False,
        better.id: True,
    }
    assert found[better.id].rules[0].champion == 0.7


def test_a_product_without_candidates_is_named_with_those_that_have(ledger: Ledger) -> None:
    submit(ledger, 0.7)
    with pytest.raises(GateError, match="no candidate of product 'dor'") as caught:
        replay(ledger, "dor", policy(0.5), 20)
    assert "door" in caught.value.fix


def test_an_altered_ledger_is_not_replayed(ledger: Ledger, url: str) -> None:
    one = submit(ledger, 0.4)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE candidates SET state = 'approved' WHERE id = '{one.id}'"))
    engine.dispose()
    with pytest.raises(DataError, match="altered"):
        replay(ledger, "door", policy(0.5), 20)
