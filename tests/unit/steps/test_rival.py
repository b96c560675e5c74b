"""With which champion a model is compared."""

from __future__ import annotations

from pathlib import Path

from ifas.promotion.gate import decide
from ifas.promotion.ledger import Ledger
from ifas.promotion.policy import Policy, Rule
from ifas.steps.rival import rival_of

POLICY = Policy(name="p", rules=[Rule(id="r", metric="auc", slice="target", min=0.5, reason="because")])


def approved(ledger: Ledger, model: str, code: str) -> str:
    """A candidate that became champion; evaluated by some code."""
    champion = ledger.champion("door")
    metrics = {"slices": {"target": {"auc": {"value": 0.9, "n": 9}}}}
    made = ledger.submit(
        product="door",
        run_id="r",
        evidence={"model": model, "steps": code, "champion": champion.id if champion else ""},
        model_sha256=model,
        dataset_revision="f00",
        metrics=metrics,
        decision=decide(metrics, champion.metrics if champion else None, POLICY),
        facts={"champion": champion.id if champion else None},
    )
    return ledger.approve(made.id, actor="ann", reason="good").id


def test_a_model_is_never_compared_with_itself_however_often_it_was_evaluated(tmp_path: Path) -> None:
    """Or each run would find another champion than the last one, and its evaluation could never be reused."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    assert rival_of(ledger, "door", {"model": "m"}) is None
    for code in ("1", "2", "3"):
        approved(ledger, "m", code)
        assert rival_of(ledger, "door", {"model": "m"}) is None
    last = ledger.champion("door")
    assert last is not None
    assert rival_of(ledger, "door", {"model": "n"}) == last
    assert rival_of(ledger, "door", {"model": "m", "steps": "4"}) == last, "other figures of the same model"
    other = approved(ledger, "n", "3")
    for code in ("4", "5"):
        assert rival_of(ledger, "door", {"model": "m"}).id == other  # type: ignore[union-attr]
        approved(ledger, "m", code)
    ledger.close()
