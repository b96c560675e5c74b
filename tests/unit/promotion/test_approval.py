"""Who wants to ship what nobody approved: by another file, a changed row, an old comparison, or a race."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from ifas.core.errors import DataError, GateError, NotApproved, StaleCandidate
from ifas.promotion.again import judge_again
from ifas.promotion.approval import approval_of, require_approved
from ifas.promotion.candidate import Candidate
from ifas.promotion.gate import decide
from ifas.promotion.ledger import Ledger
from ifas.promotion.policy import Policy, Rule
from ifas.promotion.products import Products
from tests.unit.promotion.reviewers import Keys

#: Half right is enough, and no champion is made worse.
POLICY = Policy(
    name="p",
    rules=[
        Rule(id="floor", metric="auc", slice="target", min=0.5, reason="r"),
        Rule(id="no-loss", metric="auc", slice="target", max_drop=0.0, missing_champion="pass", reason="r"),
    ],
)


def figures(auc: float) -> dict[str, Any]:
    return {"slices": {"target": {"auc": {"value": auc, "n": 9}}}}


def submit(ledger: Ledger, name: str, auc: float, champion: Candidate | None = None, **facts: Any) -> Candidate:
    model = hashlib.sha256(name.encode()).hexdigest()
    return ledger.submit(
        product="door",
        run_id=f"run-{name}",
        evidence={
            "model": model,
            "metrics": hashlib.sha256(str(auc).encode()).hexdigest(),
            "policy": POLICY.sha256,
            "champion": champion.id if champion else "",
        },
        model_sha256=model,
        dataset_revision="f00",
        metrics=figures(auc),
        decision=decide(figures(auc), champion.metrics if champion else None, POLICY),
        facts={"policy": POLICY.model_dump(mode="json"), **facts},
    )


def test_only_what_was_approved_is_let_through_and_the_error_names_what_is_not(ledger: Ledger) -> None:
    candidate = submit(ledger, "a", 0.9)
    known = dict(candidate.evidence)
    with pytest.raises(NotApproved, match=f"{candidate.id} is pending"):
        require_approved(ledger, candidate.id, known)
    ledger.approve(candidate.id, actor="ann", reason="good")
    approval = require_approved(ledger, candidate.id, known)
    assert (approval.actor, approval.reason, approval.state) == ("ann", "good", "approved")
    assert approval.model_sha256 == known["model"]
    for name in ("model", "metrics"):
        with pytest.raises(GateError, match=rf"^{name}: SHA-256 0000.*approved with {known[name][:12]}"):
            require_approved(ledger, candidate.id, {**known, name: "0" * 64})
    with pytest.raises(GateError, match=r"predictions: .*without any"):
        require_approved(ledger, candidate.id, {**known, "predictions": "1" * 64})
    with pytest.raises(GateError, match="no candidate"):
        require_approved(ledger, "abcdef123456", known)


def test_a_row_that_says_approved_is_no_approval_and_is_named(ledger: Ledger, url: str) -> None:
    refused = submit(ledger, "bad", 0.1)
    assert refused.state == "refused"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE candidates SET state = 'approved' WHERE id = '{refused.id}'"))
    engine.dispose()
    for ask in (lambda: approval_of(ledger, refused.id), lambda: require_approved(ledger, refused.id, {})):
        with pytest.raises(DataError, match=f"candidate {refused.id}: it says approved, its decisions say refused"):
            ask()


@pytest.mark.parametrize(("auc", "state"), [(0.8, "refused"), (0.95, "pending")])
def test_a_better_champion_came_so_it_is_judged_again_first(ledger: Ledger, auc: float, state: str) -> None:
    stale, better = submit(ledger, "stale", auc), submit(ledger, "better", 0.9)
    assert stale.state == better.state == "pending", "each was the first, with no champion to beat"
    ledger.approve(better.id, actor="ann", reason="good")
    with pytest.raises(StaleCandidate, match=f"no champion, but the champion of product door is {better.id} by now"):
        ledger.approve(stale.id, actor="ann", reason="I have waited for long")
    assert ledger.get(stale.id).state == "pending", "an attempt changes nothing"

    again = judge_again(ledger, stale.id)
    assert (again.state, again.evidence["champion"], again.facts["champion"]) == (state, better.id, better.id)
    assert again.decision["rules"][1]["champion"] == 0.9
    assert {**again.evidence, "champion": ""} == stale.evidence
    assert ledger.get(stale.id).state == "superseded"
    assert again.id in ledger.checked(stale.id)[1][-1].reason
    with pytest.raises(GateError, match="only a pending one"):
        judge_again(ledger, stale.id)
    if state == "pending":
        ledger.approve(again.id, actor="ann", reason="better than the better one")
        assert ledger.champion("door") == ledger.get(again.id)
    ledger.verify()


@pytest.mark.parametrize("paired", [True, False])
def test_who_is_judged_again_needs_a_paired_difference_to_todays_champion(ledger: Ledger, paired: bool) -> None:
    """That the evaluation compared it with another model in pairs says nothing of the one that came since."""
    bound = Rule(
        id="b", metric="auc", slice="target", max_drop=0.1, bound="interval", missing_champion="pass", reason="r"
    )
    policy = Policy(name="paired", rules=[bound])
    better = submit(ledger, "better", 0.95)
    entry = {"value": -0.05, "interval": [-0.08, 0.0], "champion": 0.95, "n": 9}
    against = {"candidate": better.id if paired else "0" * 12, "slices": {"target": {"auc": entry}}}
    metrics = {**figures(0.9), "against_champion": against}
    waits = ledger.submit(
        product="door",
        run_id="r",
        evidence={"policy": policy.sha256, "champion": ""},
        model_sha256="m",
        dataset_revision="f00",
        metrics=metrics,
        decision=decide(metrics, None, policy),
        facts={"policy": policy.model_dump(mode="json")},
    )
    ledger.approve(better.id, actor="ann", reason="good")
    again = judge_again(ledger, waits.id)
    assert again.state == ("pending" if paired else "refused")
    (rule,) = again.decision["rules"]
    assert (rule["interval"] == [-0.08, 0.0]) == paired
    assert ("no paired difference" in rule["why"]) != paired


def test_a_candidate_without_its_policy_can_not_be_judged_again(ledger: Ledger) -> None:
    old, better = submit(ledger, "old", 0.9, policy=None), submit(ledger, "better", 0.9)
    ledger.approve(better.id, actor="ann", reason="good")
    with pytest.raises(GateError, match="does not hold the policy"):
        judge_again(ledger, old.id)
    assert ledger.get(old.id).state == "pending"


def test_a_policy_that_was_made_stricter_counts_for_who_waits(ledger: Ledger, url: str, keys: Keys) -> None:
    """Not what the candidate was judged by, and not what a run says."""
    waits = submit(ledger, "waits", 0.9)
    strict = Policy(name="strict", rules=[Rule(id="r", metric="auc", slice="target", min=0.95, reason="r")])
    products = Products(url)
    people = keys.people("ann")
    products.register("door", strict, by_policy=False, actor="admin", reason="a real door", people=people)
    with pytest.raises(StaleCandidate, match="judged by another policy than product door has, 'strict'"):
        ledger.approve(waits.id, actor="ann", reason="good")
    again = judge_again(ledger, waits.id)
    assert (again.state, again.evidence["policy"]) == ("refused", strict.sha256)
    products.register("door", POLICY, by_policy=False, actor="admin", reason="too strict", people=people)
    fits = submit(ledger, "fits", 0.9)
    with pytest.raises(GateError, match="approved by people"):
        ledger.approve(fits.id, actor="policy", reason="every rule passed")
    assert ledger.approve(fits.id, actor="ann", reason="good", key=keys.private("ann")).state == "approved"
    products.close()


def test_a_champion_that_is_hidden_for_a_moment(ledger: Ledger, url: str) -> None:
    """A worse one is to be approved while nobody sees whom it should beat; afterwards all is put back."""
    best, worse = submit(ledger, "best", 0.9), submit(ledger, "worse", 0.6)
    ledger.approve(best.id, actor="ann", reason="good")
    engine = create_engine(url)

    def say(change: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE candidates SET {change} WHERE id = '{best.id}'"))

    for hidden, back in (("product = 'x'", "product = 'door'"), ("state = 'rejected'", "state = 'approved'")):
        say(hidden)
        for act in (
            lambda: ledger.approve(worse.id, actor="eve", reason="good"),
            lambda: ledger.champion("door"),
            lambda: submit(ledger, "another", 0.7),
        ):
            with pytest.raises(DataError, match="was altered at"):
                act()
        say(back)
    engine.dispose()
    with pytest.raises(StaleCandidate):
        ledger.approve(worse.id, actor="ann", reason="good")
    ledger.verify()


def test_of_two_that_beat_nobody_only_one_becomes_champion_unjudged(ledger: Ledger, url: str) -> None:
    """Both approvals were right when they began."""
    several = [submit(ledger, name, 0.9) for name in "abcdef"]
    start = threading.Barrier(len(several))

    def act(candidate: Candidate) -> str:
        own = Ledger(url)
        try:
            start.wait()
            return own.approve(candidate.id, actor="ann", reason="good").state
        except StaleCandidate:
            return "stale"
        finally:
            own.close()

    with ThreadPoolExecutor(len(several)) as pool:
        outcomes = list(pool.map(act, several))
    assert sorted(outcomes) == ["approved", *["stale"] * (len(several) - 1)]
    ledger.verify()
