"""A ledger with a candidate in each state that a wrong command may meet."""

from ifas.promotion.gate import Decision, RuleOutcome
from ifas.promotion.ledger import Ledger


def decided(url: str) -> dict[str, str]:
    """Ids by state: pending, approved, refused."""
    ledger = Ledger(url)
    failed = RuleOutcome(
        id="r",
        metric="auc",
        slice="target",
        kind="min",
        limit=0.9,
        value=0.1,
        champion=None,
        margin=-0.8,
        n=9,
        passed=False,
        why="value 0.1",
        reason="r",
    )
    ids = {}
    for state in ("pending", "approved", "refused"):
        decision = Decision(
            passed=state != "refused",
            policy="p",
            policy_sha256="s",
            rules=[failed] if state == "refused" else [],
            notes=[],
        )
        ids[state] = ledger.submit(
            product="ifas",
            run_id="r",
            evidence={"model": state},
            model_sha256=state,
            dataset_revision="d",
            metrics={},
            decision=decision,
            facts={"artifacts": {"model": "/gone/model", "evaluation": "/gone/evaluation"}},
        ).id
    ledger.approve(ids["approved"], actor="ann", reason="good")
    ledger.close()
    return ids
