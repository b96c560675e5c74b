"""What a reviewer sees and does: the list, the decision, files that are not what was judged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ifas.promotion.people import People
from ifas.promotion.products import Products
from ifas.review import comments, figures, shown
from ifas.review.app import app
from tests.unit.promotion.reviewers import Keys
from tests.unit.review.conftest import FAILS, PASSES, Site, token


def test_the_list_shows_state_gate_and_what_changed(site: Site, candidate: Any, decide_by: Any) -> None:
    client = site.signed_in()
    assert decide_by(client, candidate.id, "approve").status_code == 303
    second, refused = site.submit(name="two"), site.submit(FAILS, name="three", product="gate")
    page = client.get("/").text
    for one in (candidate, second, refused):
        assert one.id in page
    for words in (
        "waits for a decision",
        "refused by the gate",
        "approved",
        "first of its product",
        "weights",
        "champion",
    ):
        assert words in page
    only = client.get("/", params={"product": "gate"}).text
    assert refused.id in only
    assert second.id not in only
    waiting = client.get("/", params={"state": "pending"}).text
    assert second.id in waiting
    assert candidate.id not in waiting


def test_the_page_has_every_part(site: Site, candidate: Any) -> None:
    page = site.signed_in().get(f"/candidates/{candidate.id}").text
    for heading in (
        "Decide", "Decisions", "Comments", "Slices", "Curves", "What another threshold would move", "Worst mistakes",
        "Right verdict, wrong words", "Label audit", "Exposure", "Data", "Lineage", "Cost", "Evidence",
    ):  # fmt: skip
        assert heading in page, heading
    # Slices, handled, curves and the sweep; none of them failed.
    assert page.count('<div class="chart" role="img"') == 12
    assert "could not be drawn" not in page
    assert "12 images share a corner" in page
    assert page.count(".jpg") > 5
    assert "it must rank" in page.lower()
    assert "#step-train" in page


def test_failed_rules_come_first(site: Site) -> None:
    refused = site.submit(FAILS, name="refused")
    page = site.signed_in().get(f"/candidates/{refused.id}").text
    assert "The gate refuses it" in page
    assert "Approve</b> is off: the gate refused it" in page
    assert 'name="action"' not in page
    rules = figures.rules(refused, None)
    assert not rules[0].passed
    assert rules[0].margin.startswith("−")


def test_approve_and_reject_with_a_reason(site: Site, candidate: Any, decide_by: Any) -> None:
    client = site.signed_in()
    nothing = decide_by(client, candidate.id, "approve", reason="  ")
    assert nothing.status_code == 409
    assert "no reason given" in nothing.text
    done = decide_by(client, candidate.id, "approve", reason="the masks are rejected now")
    assert done.headers["location"] == f"/candidates/{candidate.id}?done=approve"
    page = client.get(done.headers["location"]).text
    assert "you approved candidate" in page
    assert "the masks are rejected now" in page
    assert "ann (review page)" in page
    late = decide_by(client, candidate.id, "reject", reason="too late")
    assert late.status_code == 409
    assert "it is approved already" in late.text
    assert "too late" in late.text or late.text.count("reason") > 0


def test_a_candidate_that_waited_is_judged_again(site: Site, candidate: Any, decide_by: Any) -> None:
    client = site.signed_in()
    waiting = site.submit(name="two")
    assert decide_by(client, candidate.id, "approve").status_code == 303
    assert "another champion has been approved since its gate" in client.get(f"/candidates/{waiting.id}").text
    answer = decide_by(client, waiting.id, "approve")
    assert answer.status_code == 409
    assert "It was judged again by today&#39;s" in answer.text
    (again,) = (one for one in site.ledger.list() if one.state == "pending")
    assert f'href="/candidates/{again.id}"' in answer.text
    assert site.ledger.get(waiting.id).state == "superseded"


def test_comments_are_shown_with_who_and_about_what(site: Site, candidate: Any) -> None:
    client = site.signed_in()
    form = {"text": "look at masks", "metric": "apcer_max", "token": token(client.get("/").text)}
    place = f"/candidates/{candidate.id}/comments"
    assert client.post(place, data=form).status_code == 303
    part = client.post(place, data={**form, "text": "and prints", "metric": "nonsense"}, headers={"hx-request": "true"})
    assert part.status_code == 200
    assert "<html" not in part.text
    said = comments.of(site.database, candidate.id)
    assert [(one.author, one.metric, one.text) for one in said] == [
        ("ann", "apcer_max", "look at masks"),
        ("ann", "", "and prints"),
    ]
    assert "1 note" in client.get(f"/candidates/{candidate.id}").text
    assert client.post(place, data={**form, "text": " "}).status_code == 400


def test_a_short_id_leads_to_the_permalink(site: Site, candidate: Any) -> None:
    client = site.signed_in()
    assert client.get(f"/candidates/{candidate.id[:7]}").headers["location"] == f"/candidates/{candidate.id}"
    for unknown in ("0123456789ab", "zzz", "a"):
        assert client.get(f"/candidates/{unknown}").status_code == 404


def test_a_link_from_another_site_asks_again_instead_of_losing_the_session(site: Site, candidate: Any) -> None:
    client = site.client()
    answer = client.get(f"/candidates/{candidate.id}", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 200
    assert f'content="0; url=/candidates/{candidate.id}"' in answer.text
    assert "set-cookie" not in answer.headers
    assert client.get(f"/candidates/{candidate.id}", headers={"sec-fetch-site": "same-origin"}).status_code == 303


def test_the_sweep_says_what_moves(site: Site, candidate: Any) -> None:
    client = site.signed_in()
    own = client.get(f"/candidates/{candidate.id}/sweep").text
    assert "the frozen one" in own
    low, high = (client.get(f"/candidates/{candidate.id}/sweep", params={"at": at}).text for at in (0, 160))
    assert "Verdicts that change" in low
    assert "Verdicts that change" in high
    assert "frozen <span" in high
    assert client.get(f"/candidates/{candidate.id}/sweep", params={"at": -5}).text == low
    assert client.get(f"/candidates/{candidate.id}/sweep", params={"at": "x"}).status_code == 400


@pytest.mark.parametrize("file", ["predictions.parquet", "lineage.json"])
def test_a_file_that_is_not_what_was_judged_is_not_shown(site: Site, candidate: Any, file: str) -> None:
    path = site.root / "one" / file
    if file == "lineage.json":
        path.write_text(path.read_text().replace('"steps":6', '"steps":7'))
    else:
        import pandas as pd

        pd.read_parquet(path).assign(score=1.0).to_parquet(path, index=False)
    page = site.signed_in().get(f"/candidates/{candidate.id}").text
    name = file.partition(".")[0]
    assert f"Not what was judged: {name}." in page
    assert 'value="approve"' in page
    if name == "predictions":
        assert "ROC" not in page
        assert ".jpg" not in page
    else:
        assert "#step-train" not in page


def test_the_lineage_of_another_candidate_is_not_shown(site: Site, candidate: Any) -> None:
    from tests.unit.review.conftest import lineage_of

    (site.root / "one" / "lineage.json").write_text(lineage_of({"slices": {}}).model_dump_json())
    page = site.signed_in().get(f"/candidates/{candidate.id}").text
    assert "Not what was judged: lineage." in page
    assert "is the lineage of another candidate" in page


def test_the_ledger_alone_is_enough(site: Site, candidate: Any) -> None:
    for file in (site.root / "one").iterdir():
        file.unlink()
    page = site.signed_in().get(f"/candidates/{candidate.id}").text
    assert "What could not be read" in page
    assert 'value="approve"' in page
    assert page.count('<div class="chart" role="img"') == 7
    assert "Not what was judged" not in page


def test_an_old_candidate_without_places_or_figures_is_shown(site: Site, decide_by: Any) -> None:
    from ifas.promotion.gate import decide

    bare = site.ledger.submit(
        product="p", run_id="r", evidence={"model": "m"}, model_sha256="m", dataset_revision="", metrics={},
        decision=decide({}, None, FAILS), facts={},
    )  # fmt: skip
    client = site.signed_in()
    assert client.get("/").status_code == 200
    answer = client.get(f"/candidates/{bare.id}")
    assert answer.status_code == 200
    assert "it is not in the metrics" in answer.text.lower()


def test_a_paired_difference_is_shown_where_there_is_one() -> None:
    entry = {"value": 0.2, "interval": [0.1, 0.3], "n": 10, "errors": 2}
    metrics = {"slices": {"target": {"bpcer": entry}}}
    assert figures.figure(metrics, None, "target", "bpcer").difference == shown.DASH
    # On images of its own the champion was better, on the same ones it is worse.
    champion = {"slices": {"target": {"bpcer": {"value": 0.1, "interval": [0.0, 0.2], "n": 10, "errors": 1}}}}
    assert figures.figure(metrics, champion, "target", "bpcer").better is False
    pair = {"value": -0.05, "interval": [-0.1, 0.02], "champion": 0.25}
    metrics["against_champion"] = {"slices": {"target": {"bpcer": pair}}}
    found = figures.figure(metrics, champion, "target", "bpcer")
    assert found.difference == "−5.0"
    assert found.difference_interval == "−10.0 to +2.0"
    assert (found.champion, found.champion_interval, found.better) == (shown.value(0.25, "bpcer"), "", True)
    metrics["against_champion"] = {"slices": {"target": {"bpcer": None}}}
    assert figures.figure(metrics, champion, "target", "bpcer").difference == shown.DASH


def test_a_difference_to_another_champion_than_the_gates_is_not_shown(candidate: Any) -> None:
    pair = {"candidate": "f0e1d2c3b4a5", "slices": {}}
    found = replace(candidate, metrics={**candidate.metrics, "against_champion": pair})
    champion = replace(candidate, id="f0e1d2c3b4a5")
    assert figures.compared(found, champion) == found.metrics
    for other in (candidate, None):
        assert figures.compared(found, other) == candidate.metrics


def test_charts_show_the_champion_on_the_same_images() -> None:
    """Where it was judged on them; a figure or species that was not compared stays that of its own evaluation."""
    own = {"value": 0.1, "interval": [0.0, 0.2], "n": 10}
    species = {"print.flat": own, "mask.paper": own}
    champion = {"slices": {"target": {"bpcer": own, "auc": own, "apcer": species}, "domain:a": {"bpcer": own}}}
    pair = {"value": 0.2, "interval": [0.1, 0.3], "champion": 0.4}
    against = {"candidate": "c", "slices": {"target": {"bpcer": pair, "apcer": {"print.flat": pair}}}}
    found = figures.beside({"against_champion": against}, champion)
    same = {"value": 0.4}
    assert found is not None
    assert found["slices"] == {
        "target": {"bpcer": same, "auc": own, "apcer": {"print.flat": same, "mask.paper": own}},
        "domain:a": {"bpcer": own},
    }
    assert figures.beside({}, champion) is champion
    assert figures.beside({"against_champion": against}, None) is None


def test_an_approval_is_taken_back(site: Site, candidate: Any, decide_by: Any) -> None:
    client = site.signed_in()
    assert 'value="revoke"' not in client.get(f"/candidates/{candidate.id}").text
    decide_by(client, candidate.id, "approve")
    assert 'value="revoke"' in client.get(f"/candidates/{candidate.id}").text
    assert decide_by(client, candidate.id, "revoke", reason="a new mask").status_code == 303
    last = site.ledger.checked(candidate.id)[1][-1]
    assert (last.to_state, last.actor, last.reason) == ("revoked", "ann (review page)", "a new mask")


def test_a_product_with_reviewers_is_decided_by_the_pages_key(
    site: Site, candidate: Any, decide_by: Any, tmp_path: Path
) -> None:
    """The page answers for who signed in; whom its key does not speak for has no button."""
    keys = Keys(tmp_path)
    people = People(reviewers={"ann": [keys.public("page")], "ada": [keys.public("root")]})
    products = Products(f"sqlite:///{tmp_path / 'ledger.db'}")
    products.register("door", PASSES, by_policy=False, actor="adm", reason="r", people=people)
    products.close()
    page = site.signed_in().get(f"/candidates/{candidate.id}").text
    assert "this page has no key to sign decisions with" in page
    assert 'value="approve"' not in page
    assert "1 of ann, ada must approve, each by a signature" in page
    site.config = site.config.model_copy(update={"signing_key": keys.private("page")})
    other = site.signed_in("ada")
    assert "key does not speak for ada" in other.get(f"/candidates/{candidate.id}").text
    assert decide_by(other, candidate.id, "approve").status_code == 409
    assert site.ledger.get(candidate.id).state == "pending"
    assert decide_by(site.signed_in(), candidate.id, "approve", reason="fine").status_code == 303
    last = site.ledger.checked(candidate.id)[1][-1]
    assert (last.to_state, last.actor) == ("approved", "ann")
    assert last.statement is not None
    assert "you are no reviewer of product door: ada" in without_ann(site, keys).get(f"/candidates/{candidate.id}").text


def without_ann(site: Site, keys: Keys) -> Any:
    """Ann's page after she is no reviewer any more."""
    products = Products(f"sqlite:///{site.root / 'ledger.db'}")
    people = People(reviewers={"ada": [keys.public("root")]})
    products.register("door", PASSES, by_policy=False, actor="adm", reason="r", people=people)
    products.close()
    return site.signed_in()


def test_a_decision_is_told_to_others_whether_it_was_possible_or_not(
    site: Site, candidate: Any, decide_by: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `ifas review` puts around each: the events of the ledger."""
    states: list[str] = []

    @contextmanager
    def deciding() -> Iterator[None]:
        try:
            yield
        finally:
            states.append(site.ledger.get(candidate.id).state)

    # pytest calls every conftest `conftest`: sys.modules may hold that of another folder
    monkeypatch.setitem(site.client.__func__.__globals__, "app", partial(app, deciding=deciding))
    client = site.signed_in()
    decide_by(client, candidate.id, "approve")
    assert decide_by(client, candidate.id, "reject").status_code == 409
    assert states == ["approved", "approved"]
