"""The review page in a real browser, from signing in to a decision, on candidates of real runs.

Screenshots are written to $IFAS_SCREENSHOTS, or below the test's own folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ifas.core.config import load
from ifas.database.connection import Database
from ifas.promotion.gate import decide
from ifas.promotion.ledger import Ledger
from ifas.promotion.people import People
from ifas.promotion.policy import Policy, Rule
from ifas.promotion.products import Products
from ifas.review.accounts import Accounts
from ifas.review.tables import REVIEW
from ifas.steps.chain import run_chain
from tests.e2e.test_report_browser import CHROMIUM, OPTIONS
from tests.unit.promotion.reviewers import Keys

pytestmark = pytest.mark.slow

PASSWORD = "correct horse battery"
#: Layout goes by the width and colours by the theme, so not every pair is looked at.
SCREENS = ((1440, "light"), (1024, "light"), (390, "light"), (390, "dark"))
RULES = [
    Rule(
        id="worst", metric="apcer_max", slice="target", max=1.0, reason="no species may fool the door most of the time"
    ),
    Rule(id="bpcer", metric="bpcer", slice="target", max=1.0, reason="people must get in"),
    Rule(
        id="ranking", metric="auc", slice="target", max_drop=1.0, missing_champion="pass", reason="ranking may not fall"
    ),
    Rule(id="flips", metric="flips", slice="handling:*", max=1.0, reason="compressing an image must not open the door"),
]
STRICT = Rule(id="eer", metric="eer", slice="target", max=0.0, reason="no error at all, which nobody reaches")


@dataclass
class Review:
    """A served page, and the candidates behind it."""

    url: str
    ledger: Ledger
    ids: dict[str, str]
    shots: Path
    said: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def runs(registry: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ledger]:
    """Two real runs up to the gate, and the ledger that they wrote."""
    root = tmp_path_factory.mktemp("runs")
    url = f"sqlite:///{root / 'runs.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IFAS_HOME", str(root / "home"))
        for name, steps in (("first", 6), ("second", 12)):
            chosen = [
                f"ingest.registry={registry.path}", "ingest.dataset=toy", f"gate.ledger={url}", "evaluate.explain=all",
                f"train.steps={steps}", "approve.by_policy=false",
            ]  # fmt: skip
            run_chain(load("tiny", chosen), name, root / name)
    return root, Ledger(url)


@pytest.fixture(scope="module")
def review(runs: tuple[Path, Ledger], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Review]:
    """The page as `ifas review` serves it: a champion, three candidates that wait, two that the gate refused.

    The reviewer may override the gate of the product of one of these.
    """
    root, written = runs
    ledger_url, database_url = f"sqlite:///{root / 'ledger.db'}", f"sqlite:///{root / 'review.db'}"
    ledger, found = Ledger(ledger_url), {one.run_id: one for one in written.list()}
    ids: dict[str, str] = {}
    keys, refusing = Keys(root), Policy(name="door 5", rules=[STRICT, *RULES])
    products = Products(ledger_url)
    people = People(reviewers={"ann": [keys.public("page")]}, overriders=["ann"])
    products.register("side door", refusing, by_policy=False, actor="adm", reason="new", people=people)
    products.close()
    for name, run, rules in (
        ("champion", "first", RULES), ("approve", "second", RULES), ("reject", "second", RULES[:3]),
        ("phone", "second", RULES[:2]), ("refused", "second", refusing.rules), ("override", "first", refusing.rules),
    ):  # fmt: skip
        product = "side door" if name == "override" else "front door"
        one, policy, rival = (
            found[run],
            Policy(name=f"door {len(rules)}", rules=list(rules)),
            ledger.champion(product),
        )
        places = {
            **one.facts["artifacts"],
            "dataset": str(root / run / "ingest" / "dataset"),
            "captions": str(root / run / "caption" / "captions"),
        }
        ids[name] = ledger.submit(
            product=product, run_id=f"20261127-{run}", model_sha256=one.model_sha256,
            evidence={**one.evidence, "policy": policy.sha256, "champion": rival.id if rival else ""},
            dataset_revision=one.dataset_revision, metrics=one.metrics,
            decision=decide(one.metrics, rival.metrics if rival else None, policy),
            facts={
                "champion": rival.id if rival else None,
                "policy": policy.model_dump(mode="json"),
                "artifacts": places,
            },
        ).id  # fmt: skip
        if name == "champion":
            ledger.approve(ids[name], actor="ann (review page)", reason="the first model that passes every rule")
    database = Database(database_url, REVIEW)
    Accounts(database).add("ann", PASSWORD, "reviewer", "root")
    database.close()
    shots = Path(os.environ.get("IFAS_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    shots.mkdir(parents=True, exist_ok=True)
    command = [
        str(Path(sys.executable).with_name("ifas")), "review", "-c", "tiny", "--port", "0",
        "-s", f"gate.ledger={ledger_url}", "-s", f"review.database={database_url}",
        "-s", f"review.key={root / 'review.key'}", "-s", f"review.signing_key={keys.private('page')}",
    ]  # fmt: skip
    log = (root / "review.log").open("w")
    served = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert served.stdout
        line = served.stdout.readline()
        assert line.startswith("review page at http"), (root / "review.log").read_text()
        yield Review(line.split()[3], ledger, ids, shots)
    finally:
        served.terminate()
        served.wait(20)
        log.close()
    assert "Traceback" not in (root / "review.log").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "the page is checked in a real browser: apt-get install -y chromium"
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield opened
        opened.close()


def page_of(review: Review, browser: Any, width: int, theme: str) -> Any:
    """A page whose console and requests are noted."""
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme).new_page()
    page.set_default_timeout(60_000)
    page.on("console", lambda message: review.said.append(message.text))
    page.on("pageerror", lambda error: review.said.append(str(error)))
    page.on("request", lambda request: review.asked.add(urlsplit(request.url).netloc))
    return page


def sign_in(page: Any, url: str) -> None:
    """By keyboard only: the name has the focus."""
    page.goto(url)
    page.wait_for_selector("#name:focus")
    page.keyboard.type("ann")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector(".who")


def tab_to(page: Any, selector: str, most: int = 200) -> None:
    """Presses Tab until the focus is there, and sees that it is visible."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("one => document.activeElement.matches(one)", selector):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"nothing shows that {selector} has the focus"
            return
    raise AssertionError(f"{selector} can't be reached by Tab")


def whole(page: Any) -> None:
    """Loads every picture, also those further down."""
    page.evaluate("document.querySelectorAll('img').forEach(one => one.loading = 'eager')")
    for _ in range(150):
        if page.evaluate("[...document.images].every(one => one.complete)"):
            break
        time.sleep(0.2)
    assert page.evaluate("[...document.images].every(one => one.naturalWidth > 0 && one.alt)")


def check(page: Any) -> None:
    """Nothing leaves the page at the side, and axe finds nothing serious."""
    from axe_playwright_python.sync_playwright import Axe

    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    found = Axe().run(page).response["violations"]
    serious = [
        (one["id"], one["help"], [node["html"][:160] for node in one["nodes"][:3]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize(("width", "theme"), SCREENS)
def test_pages_are_whole_and_accessible(review: Review, browser: Any, width: int, theme: str) -> None:
    page = page_of(review, browser, width, theme)
    page.goto(review.url)
    check(page)
    page.screenshot(path=str(review.shots / f"sign-in-{width}-{theme}.png"))
    sign_in(page, review.url)
    check(page)
    page.screenshot(path=str(review.shots / f"list-{width}-{theme}.png"), full_page=True)
    for name in ("phone", "refused"):
        page.goto(f"{review.url}/candidates/{review.ids[name]}")
        assert page.locator(".chart svg").count() == 12
        assert page.locator(".cards img").count() >= 3
        whole(page)
        check(page)
        page.screenshot(path=str(review.shots / f"{name}-{width}-{theme}-top.png"))
        page.screenshot(path=str(review.shots / f"{name}-{width}-{theme}.png"), full_page=True)
    rules = page.locator("table.rules tbody tr")
    assert "fail" in rules.first.get_attribute("class")
    assert page.locator("button[name=action]").count() == 0
    page.context.close()


@pytest.mark.parametrize(("width", "action"), [(1440, "approve"), (1024, "reject"), (390, "reject")])
def test_from_signing_in_to_a_decision_by_keyboard(review: Review, browser: Any, width: int, action: str) -> None:
    candidate = review.ids["phone" if width == 390 else action]
    page = page_of(review, browser, width, "light")
    sign_in(page, review.url)
    tab_to(page, f"a[href='/candidates/{candidate}']")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{review.url}/candidates/{candidate}")

    # A comment, without leaving the page.
    tab_to(page, "#text")
    page.keyboard.type("I looked at every mask.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#said", has_text="I looked at every mask.").wait_for()

    # The threshold, with the arrow keys.
    tab_to(page, "#at")
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    step = page.locator("#at").input_value()
    page.wait_for_selector(f"#swept[data-at='{step}']")
    assert "frozen 0." in page.locator("#swept").inner_text()
    assert page.locator("#swept .cards img").count() >= 1
    whole(page)
    page.locator("#swept").screenshot(path=str(review.shots / f"sweep-{width}.png"))

    # A node of the lineage opens.
    tab_to(page, "a[href='#step-train']")
    page.keyboard.press("Enter")
    page.locator("#step-train").wait_for(state="visible")

    page.reload()
    tab_to(page, "#reason")
    page.keyboard.type("Masks are rejected, and people get in.")
    tab_to(page, f"button[value={action}]", 3)
    page.keyboard.press("Enter")
    page.get_by_role("status").wait_for()
    done = {"approve": "approved", "reject": "rejected"}[action]
    assert f"you {done} candidate {candidate}" in page.get_by_role("status").inner_text()
    assert page.locator(".history").inner_text().count("Masks are rejected, and people get in.") == 1
    check(page)
    page.screenshot(path=str(review.shots / f"decided-{width}.png"))
    found, history = review.ledger.checked(candidate)
    assert found.state == done
    assert history[-1].actor == "ann (review page)"
    page.context.close()


def test_an_override_by_keyboard(review: Review, browser: Any) -> None:
    """With a reason, and only after saying that the failed rules were read."""
    candidate = review.ids["override"]
    page = page_of(review, browser, 390, "light")
    sign_in(page, f"{review.url}/candidates/{candidate}")
    check(page)
    page.locator("section[aria-labelledby=h-decide]").screenshot(path=str(review.shots / "override.png"))
    tab_to(page, "#why")
    page.keyboard.type("The door is locked at night.")
    tab_to(page, "button[value=override]", 3)
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.matches('#read:invalid')"), "sent without the box"
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("status").wait_for()
    assert "you overrode the gate" in page.get_by_role("status").inner_text()
    found, history = review.ledger.checked(candidate)
    assert (found.state, history[-1].actor, history[-1].reason) == ("approved", "ann", "The door is locked at night.")
    page.context.close()


def test_it_prints(review: Review, browser: Any) -> None:
    page = page_of(review, browser, 1024, "dark")
    sign_in(page, f"{review.url}/candidates/{review.ids['refused']}")
    whole(page)
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.locator(".bar").is_visible()
    assert page.locator("table.rules").is_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    page.pdf(path=str(review.shots / "refused.pdf"), format="A4")
    page.screenshot(path=str(review.shots / "refused-print.png"), full_page=True)
    page.context.close()


@pytest.mark.parametrize(("width", "theme"), SCREENS)
def test_the_report_of_a_run_is_whole_and_accessible(
    runs: tuple[Path, Ledger], review: Review, browser: Any, width: int, theme: str
) -> None:
    """The file alone, without a server: it loads nothing, and its policy lets no script run."""
    file = runs[0] / "second" / "evaluate" / "evaluation" / "report.html"
    said: list[str] = []
    asked: set[str] = set()
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme).new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.add(urlsplit(request.url).scheme))
    page.goto(file.as_uri())
    assert page.locator(".chart svg").count() == 12
    assert page.locator(".cards img").count() >= 3
    closed = page.locator("details:not([open]) > summary")
    while closed.count():
        closed.first.click()
    whole(page)
    assert said == []
    assert asked <= {"file", "data"}
    check(page)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(245, 246, 247)"
    assert light == (theme == "light")
    page.screenshot(path=str(review.shots / f"report-{width}-{theme}.png"), full_page=True)
    page.emulate_media(media="print")
    assert not page.locator(".sections").is_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    page.context.close()


def test_nothing_was_asked_of_others_and_nothing_complained(review: Review, browser: Any) -> None:
    """Last, since it looks at what the other tests have left."""
    page = page_of(review, browser, 1440, "light")
    sign_in(page, review.url)
    page.select_option("select[name=state]", "refused")
    page.locator("#candidates tbody tr").nth(1).wait_for(state="detached")
    assert page.locator("#candidates tbody tr").count() == 1
    assert review.asked == {urlsplit(review.url).netloc}
    assert review.said == []
    assert shutil.which("chromium") == CHROMIUM
    page.context.close()
