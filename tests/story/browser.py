"""The review page as the reviewer has it: `ifas review`, and a real Chromium that signs in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.drills.chain import Failed
from tests.e2e.test_report_browser import CHROMIUM, OPTIONS
from tests.story.stage import Stage

if TYPE_CHECKING:
    from playwright.sync_api import Page

PASSWORD = "a synthetic person's password"
READY = "review page at "
#: Seconds until the page answers, on a busy machine.
PATIENCE = 120.0


@contextmanager
def signed_in(stage: Stage, reviewer: str) -> Iterator[Page]:
    """The list of candidates in a window of 1440 x 900 pixels, as somebody who has signed in sees it."""
    from playwright.sync_api import sync_playwright

    if not CHROMIUM:
        raise Failed("the reviewer needs a browser: apt-get install -y chromium")
    with serving(stage, reviewer) as url, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(url)
        page.fill("#name", reviewer)
        page.fill("input[type=password]", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_selector(".who")
        yield page
        browser.close()


@contextmanager
def serving(stage: Stage, reviewer: str) -> Iterator[str]:
    """Serves the page to somebody with an account; yields its URL."""
    stage.place.environment["STORY_PASSWORD"] = PASSWORD
    stage.ifas(
        "review", "account", "add", reviewer, "--role", "reviewer", "--password-env", "STORY_PASSWORD",
        "-c", stage.config,
    )  # fmt: skip
    served = stage.place.start(["review", "-c", str(stage.config), "--port", "0"])
    try:
        until = time.monotonic() + PATIENCE
        while READY not in served.text():
            if served.process.poll() is not None or time.monotonic() > until:
                raise Failed(f"`ifas review` does not answer:\n{served.text()}")
            time.sleep(0.1)
        yield served.text().partition(READY)[2].split()[0]
    finally:
        served.process.terminate()
        served.process.wait(20)


def whole(page: Page) -> None:
    """Waits for every picture of the page, also those further down."""
    page.evaluate("document.querySelectorAll('img').forEach(one => one.loading = 'eager')")
    until = time.monotonic() + PATIENCE
    # Not `wait_for_function`: the page forbids the `eval` that it needs.
    while not page.evaluate("[...document.images].every(one => one.complete)"):
        if time.monotonic() > until:
            raise Failed("a picture of the review page does not load")
        time.sleep(0.1)


def shot(page: Page, file: Path, of: str = "") -> None:
    """What the window shows, or one part of the page."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if of:
        page.locator(of).first.screenshot(path=str(file))
    else:
        page.screenshot(path=str(file))
