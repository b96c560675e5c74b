"""Overriding the gate on the page: who may, what it takes, and that nobody else can."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from ifas.promotion.people import People
from ifas.promotion.policy import Policy
from ifas.promotion.products import Products
from tests.unit.promotion.reviewers import Keys
from tests.unit.review.conftest import FAILS, PASSES, Site


def test_an_overrider_approves_on_the_page_what_the_gate_refused(site: Site, decide_by: Any, tmp_path: Path) -> None:
    """With a reason of its own, signed as an override; nobody else has the button, or may send its form."""
    keys = Keys(tmp_path)
    people = People(
        reviewers={"ann": [keys.public("page")], "ada": [keys.public("page")]}, overriders=["ada"]
    )  # fmt: skip
    products = Products(f"sqlite:///{tmp_path / 'ledger.db'}")
    products.register("door", FAILS, by_policy=False, actor="adm", reason="r", people=people)
    products.close()
    refused = site.submit(FAILS, name="refused")
    site.config = site.config.model_copy(update={"signing_key": keys.private("page")})
    page = site.signed_in("ann").get(f"/candidates/{refused.id}").text
    assert "you are no overrider of product door: ada" in page
    assert 'name="action"' not in page
    for action in ("override", "approve"):
        assert decide_by(site.signed_in("ann"), refused.id, action).status_code == 409
    ada = site.signed_in("ada")
    page = ada.get(f"/candidates/{refused.id}").text
    assert 'value="override"' in page
    assert 'value="approve"' not in page
    assert decide_by(ada, refused.id, "approve").status_code == 409
    assert decide_by(ada, refused.id, "override", reason=" ").status_code == 409
    assert site.ledger.get(refused.id).state == "refused"
    answer = decide_by(ada, refused.id, "override", reason="the door is closed at night")
    assert answer.status_code == 303
    last = site.ledger.checked(refused.id)[1][-1]
    assert (last.to_state, last.actor, last.reason) == ("approved", "ada", "the door is closed at night")
    assert json.loads(base64.b64decode(last.statement["payload"]))["predicate"]["override"] is True
    assert "you overrode the gate" in ada.get(answer.headers["location"]).text


def test_only_an_override_approves_what_no_gate_has_signed(site: Site, decide_by: Any, tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    people = People(reviewers={"ann": [keys.public("page")], "ada": [keys.public("page")]}, overriders=["ada"])
    waiting = site.submit()
    products = Products(f"sqlite:///{tmp_path / 'ledger.db'}")
    gates = {"cluster": [keys.public("gate")]}
    products.register("door", PASSES, by_policy=False, actor="adm", reason="r", people=people, gates=gates)
    products.close()
    site.config = site.config.model_copy(update={"signing_key": keys.private("page")})
    ann, ada = site.signed_in("ann"), site.signed_in("ada")
    page = ann.get(f"/candidates/{waiting.id}").text
    assert "<b>Approve</b> is off: no gate of product door (cluster) has signed the result" in page
    assert decide_by(ann, waiting.id, "approve").status_code == 409
    assert 'value="override"' in ada.get(f"/candidates/{waiting.id}").text
    assert decide_by(ada, waiting.id, "override", reason="its gate has no key yet").status_code == 303
    assert site.ledger.get(waiting.id).state == "approved"


def test_what_the_gate_lets_pass_needs_no_override(site: Site, candidate: Any, decide_by: Any) -> None:
    client = site.signed_in()
    assert "verride" not in client.get(f"/candidates/{candidate.id}").text
    assert decide_by(client, candidate.id, "override").status_code == 409
    assert site.ledger.get(candidate.id).state == "pending"


def overriders(site: Site, tmp_path: Path, policy: Policy, approvals: int = 1) -> None:
    """Registers the product: ann and ada may override, by the page's key."""
    keys = Keys(tmp_path)
    names = {name: [keys.public("page")] for name in ("ann", "ada")}
    people = People(reviewers=names, overriders=list(names), approvals=approvals)
    products = Products(f"sqlite:///{tmp_path / 'ledger.db'}")
    products.register("door", policy, by_policy=False, actor="adm", reason="r", people=people)
    products.close()
    site.config = site.config.model_copy(update={"signing_key": keys.private("page")})


def test_what_another_policy_refused_is_not_overridden(site: Site, decide_by: Any, tmp_path: Path) -> None:
    overriders(site, tmp_path, PASSES)
    refused = site.submit(FAILS, name="refused")
    answer = decide_by(site.signed_in("ada"), refused.id, "override")
    assert answer.status_code == 409
    assert "another policy" in answer.text
    assert [one.id for one in site.ledger.list()] == [refused.id], "nothing was judged again"
    assert site.ledger.get(refused.id).state == "refused"


def test_the_first_of_two_overrides_is_told_as_one_that_is_kept(site: Site, decide_by: Any, tmp_path: Path) -> None:
    overriders(site, tmp_path, FAILS, approvals=2)
    refused = site.submit(FAILS, name="refused")
    for name, state, words in (("ada", "refused", "is kept"), ("ann", "approved", "you overrode the gate")):
        client = site.signed_in(name)
        place = decide_by(client, refused.id, "override").headers["location"]
        assert words in client.get(place).text
        assert site.ledger.get(refused.id).state == state
