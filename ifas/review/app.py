"""The review page as a FastAPI application. Every page is made on the server; htmx only saves reloading."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import resources
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, Form, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy import select
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from ifas.core.config import ReviewConfig
from ifas.core.errors import ConfigError, DataError, GateError, IfasError, ImageRefused
from ifas.core.measures import MEASURES
from ifas.database.connection import Database
from ifas.promotion.ledger import Ledger
from ifas.review import comments, pictures, shown
from ifas.review.accounts import Account, Accounts
from ifas.review.attempts import Attempts
from ifas.review.deciding import ACTIONS, JudgedAgain, decide
from ifas.review.judged import Files, OpenDataset
from ifas.review.pages import Pages
from ifas.review.proxy import account_by_proxy
from ifas.review.rendering import templates
from ifas.review.sessions import Sessions, Visit
from ifas.review.shield import Shield

log = logging.getLogger("ifas.review")

#: Where somebody may be sent after signing in.
PLACE = re.compile(r"/(candidates/[0-9a-f]{6,64})?")

Text = Annotated[str, Form()]


class Stop(Exception):
    """A request that ends here, with this answer."""

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.status_code)
        self.answer = answer


def app(
    *,
    ledger: Ledger,
    database: Database,
    config: ReviewConfig,
    key: bytes,
    open_dataset: OpenDataset | None = None,
    attempts: Attempts | None = None,
    deciding: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> ASGIApp:
    """The application.

    Args:
        ledger: where candidates are read and decided.
        database: of accounts, sessions and comments (`tables.REVIEW`).
        key: of cookies and forms.
        open_dataset: opens a candidate's dataset for its pictures; None: no pictures.
        attempts: counts failed sign-ins.
        deciding: around each decision, such as what tells others of it.
    """
    made = FastAPI(title="ifas review", docs_url=None, redoc_url=None, openapi_url=None)
    _Site(made, ledger, database, config, key, open_dataset, attempts or Attempts(), deciding)
    # Outside of everything, so that no answer is without these headers.
    return Shield(made, config.https)


class _Site:
    """The routes, and what they share."""

    def __init__(
        self,
        made: FastAPI,
        ledger: Ledger,
        database: Database,
        config: ReviewConfig,
        key: bytes,
        open_dataset: OpenDataset | None,
        attempts: Attempts,
        deciding: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._deciding = deciding
        self._ledger, self._database, self._config, self._attempts = ledger, database, config, attempts
        self._sessions = Sessions(database, key, config.session_hours)
        self._accounts = Accounts(database)
        self._pages = Pages(ledger, database, Files(open_dataset), config.signing_key)
        self._cookie = "__Host-ifas_review" if config.https else "ifas_review"
        self._templates = templates()
        made.mount("/assets", StaticFiles(directory=str(resources.files("ifas.review") / "assets")))
        for method, path, answer in (
            ("GET", "/livez", self._live),
            ("GET", "/readyz", self._ready),
            ("GET", "/", self._list),
            ("GET", "/sign-in", self._sign_in_page),
            ("POST", "/sign-in", self._sign_in),
            ("POST", "/sign-out", self._sign_out),
            ("GET", "/candidates/{candidate}", self._candidate),
            ("GET", "/candidates/{candidate}/sweep", self._sweep),
            ("GET", "/candidates/{candidate}/pictures/{sample}.jpg", self._picture),
            ("POST", "/candidates/{candidate}/decision", self._decide),
            ("POST", "/candidates/{candidate}/comments", self._comment),
        ):
            made.add_api_route(path, answer, methods=[method], response_model=None)
        made.add_exception_handler(Stop, self._stopped)
        made.add_exception_handler(IfasError, self._refused)
        made.add_exception_handler(HTTPException, self._http)
        made.add_exception_handler(RequestValidationError, self._invalid)

    # Routes. They are plain functions, which Starlette runs in threads: ledger and passwords take their time.

    def _live(self) -> Response:
        return PlainTextResponse("ok")

    def _ready(self) -> Response:
        try:
            with self._database.reading() as session:
                session.execute(select(1))
        except IfasError as error:
            log.warning("not ready: %s", error.what)
            return PlainTextResponse("the page's database does not answer", 503)
        return PlainTextResponse("ok")

    def _list(
        self,
        request: Request,
        product: Annotated[str, Query(max_length=200)] = "",
        state: Annotated[str, Query(max_length=16)] = "",
    ) -> Response:
        visit, account = self._signed_in(request)
        context = self._pages.overview(product, state if state in shown.STATES else "")
        return self._page("list.jinja", request, visit, account, **context)

    def _sign_in_page(self, request: Request, next: Annotated[str, Query(max_length=200)] = "/") -> Response:
        visit = self._visit(request)
        if self._account(request, visit):
            return RedirectResponse(_place(next), 303)
        if self._config.proxy_header:
            return self._page("problem.jinja", request, visit, None, 401, **_BY_PROXY)
        return self._page("sign_in.jinja", request, visit, None, next=_place(next), name="", wrong="")

    def _sign_in(
        self,
        request: Request,
        name: Text = "",
        password: Text = "",
        token: Text = "",
        next: Text = "/",
    ) -> Response:
        visit = self._visit(request)
        self._check_form(request, visit, None, token)
        if self._config.proxy_header:
            return self._page("problem.jinja", request, visit, None, 401, **_BY_PROXY)
        known = {"next": _place(next), "name": name[:64]}
        address = _address(request)
        if wait := self._attempts.begin(name[:64], address):
            answer = self._page(
                "sign_in.jinja", request, visit, None, 429, **known,
                wrong=f"Too many tries. The next one is taken in {wait} seconds.",
            )  # fmt: skip
            answer.headers["retry-after"] = str(wait)
            return answer
        account = self._accounts.proven(name[:64], password)
        if account is None:
            log.warning("a sign-in from %s failed", address)
            wrong = "This name and password do not fit, or the account is disabled."
            return self._page("sign_in.jinja", request, visit, None, 401, **known, wrong=wrong)
        self._attempts.succeeded(account.name, address)
        self._sessions.end(visit)
        log.info("%s signed in", account.name)
        inside = RedirectResponse(known["next"], 303)
        self._give(inside, self._sessions.begin(account.name))
        return inside

    def _sign_out(self, request: Request, token: Text = "") -> Response:
        visit, account = self._signed_in(request)
        self._check_form(request, visit, account, token)
        self._sessions.end(visit)
        answer = RedirectResponse("/sign-in", 303)
        self._give(answer, self._sessions.fresh())
        return answer

    def _candidate(self, request: Request, candidate: str, done: Annotated[str, Query(max_length=16)] = "") -> Response:
        visit, account = self._signed_in(request)
        found, history = self._pages.found(candidate)
        if found.id != candidate:
            return RedirectResponse(f"/candidates/{found.id}", 303)
        context = self._pages.candidate(account, found, history)
        return self._page(
            "candidate.jinja", request, visit, account, **context,
            done=done if done in ACTIONS else "", problem=None, typed="",
        )  # fmt: skip

    def _sweep(self, request: Request, candidate: str, at: int | None = None) -> Response:
        visit, account = self._signed_in(request)
        found, _ = self._pages.found(candidate)
        context = self._pages.swept(found, at)
        if context["swept"] is None:
            raise HTTPException(404, "No target image of this candidate has a score.")
        return self._page("sweep.jinja", request, visit, account, c=found, **context)

    def _picture(self, request: Request, candidate: str, sample: str) -> Response:
        self._signed_in(request)
        judged = self._pages.judged(self._pages.found(candidate)[0])
        known = judged.predictions is not None and bool((judged.predictions["sample_id"] == sample).any())
        if not pictures.ID.fullmatch(sample) or not known or judged.dataset is None:
            raise HTTPException(404, "There is no such picture.")
        try:
            return Response(pictures.jpeg(judged.dataset, sample), media_type="image/jpeg")
        except (DataError, ImageRefused) as error:
            log.warning(
                "picture %s of candidate %s is not shown: %s", sample[:12], candidate[:12], type(error).__name__
            )
            raise HTTPException(404, "This picture can't be shown.") from error

    def _decide(
        self, request: Request, candidate: str, action: Text = "", reason: Text = "", token: Text = ""
    ) -> Response:
        visit, account = self._signed_in(request)
        self._check_form(request, visit, account, token)
        chosen = next((one for one in ACTIONS if one == action), None)
        if chosen is None:
            raise HTTPException(400, "Nothing that can be decided was asked for.")
        found, history = self._pages.found(candidate)
        try:
            with self._deciding():
                decide(self._ledger, account, found, history, chosen, reason, self._config.signing_key)
        except GateError as error:
            log.info("%s could not %s candidate %s", account.name, chosen, found.id)
            found, history = self._pages.found(candidate)
            context = self._pages.candidate(account, found, history)
            again = error.candidate if isinstance(error, JudgedAgain) else ""
            return self._page(
                "candidate.jinja", request, visit, account, 409, **context,
                done="", problem=error, again=again, typed=reason,
            )  # fmt: skip
        log.info("%s: %s candidate %s", account.name, chosen, found.id)
        return RedirectResponse(f"/candidates/{found.id}?done={chosen}", 303)

    def _comment(
        self, request: Request, candidate: str, text: Text = "", metric: Text = "", token: Text = ""
    ) -> Response:
        visit, account = self._signed_in(request)
        self._check_form(request, visit, account, token)
        if not account.at_least("reviewer"):
            raise HTTPException(403, "You are signed in as viewer: reviewers and admins comment.")
        found, _ = self._pages.found(candidate)
        known = {rule["metric"] for rule in found.decision.get("rules", [])} | set(MEASURES)
        comments.add(self._database, found.id, account.name, text, metric if metric in known else "")
        if request.headers.get("hx-request"):
            said = comments.of(self._database, found.id)
            return self._page("comments.jinja", request, visit, account, c=found, comments=said)
        return RedirectResponse(f"/candidates/{found.id}#comments", 303)

    # Who is it, and did the form come from here?

    def _visit(self, request: Request) -> Visit:
        """What the cookie says; a fresh visit where there is none. `request.state.fresh` tells to send it."""
        found = self._sessions.read(request.cookies.get(self._cookie, ""))
        request.state.fresh = found is None
        return found or self._sessions.fresh()

    def _account(self, request: Request, visit: Visit) -> Account | None:
        if self._config.proxy_header:
            return account_by_proxy(self._config, _address(request), request.headers)
        return self._accounts.get(visit.account) if visit.account else None

    def _signed_in(self, request: Request) -> tuple[Visit, Account]:
        """The visit and its account. Raises Stop with the way to sign in."""
        visit = self._visit(request)
        account = self._account(request, visit)
        if account is not None:
            return visit, account
        fetched = request.headers.get("sec-fetch-mode", "navigate") != "navigate" or "hx-request" in request.headers
        page = request.method == "GET" and not fetched and PLACE.fullmatch(request.url.path)
        # Browsers leave a strict cookie out where a link of another site was followed: our own page asks once more.
        if page and request.state.fresh and request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise Stop(HTMLResponse(self._templates.get_template("bounce.jinja").render(place=request.url.path)))
        if self._config.proxy_header:
            raise Stop(self._page("problem.jinja", request, visit, None, 401, **_BY_PROXY))
        if page:
            raise Stop(RedirectResponse(f"/sign-in?next={quote(_place(request.url.path))}", 303))
        raise Stop(PlainTextResponse("sign in first", 401, {"hx-redirect": "/sign-in"}))

    def _check_form(self, request: Request, visit: Visit, account: Account | None, token: str) -> None:
        """Raises HTTPException where a form was not sent from a page of this visit.

        Browsers name the sender in `Origin`. By our own wish to send no referrer they make it `null` for a form, and
        then `Sec-Fetch-Site` says the same.
        """
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        ours = f"{'https' if self._config.https else request.url.scheme}://{request.headers.get('host', '')}"
        right = origin == ours if origin not in (None, "null") else site == "same-origin"
        if not right or site not in (None, "same-origin"):
            raise HTTPException(403, "This form was not sent from this page. Open the page by https or on localhost.")
        if not self._sessions.is_token(token, visit, account.name if account else ""):
            raise HTTPException(403, "This form is too old, or not from this page. Load the page and send it again.")

    # Answers.

    def _page(
        self, template: str, request: Request, visit: Visit, account: Account | None, status: int = 200, **context: Any
    ) -> HTMLResponse:
        token = self._sessions.token(visit, account.name if account else "")
        text = self._templates.get_template(template).render(
            account=account, token=token, by_proxy=bool(self._config.proxy_header), **{"again": "", **context}
        )
        answer = HTMLResponse(text, status)
        if request.state.fresh:
            self._give(answer, visit)
        return answer

    def _give(self, answer: Response, visit: Visit) -> None:
        answer.set_cookie(
            self._cookie,
            self._sessions.cookie(visit),
            path="/",
            secure=self._config.https,
            httponly=True,
            samesite="strict",
        )

    def _problem(self, request: Request, status: int, what: str, fix: str) -> Response:
        if "hx-request" in request.headers or request.url.path.endswith(".jpg"):
            return PlainTextResponse(f"{what} {fix}".strip(), status)
        visit = self._visit(request)
        account = self._account(request, visit)
        if account is None:
            # Who is not signed in is told nothing of the ledger.
            what, fix = (what, fix) if status == 403 else ("This page can't be shown.", "Sign in.")
        return self._page("problem.jinja", request, visit, account, status, what=what, fix=fix)

    def _stopped(self, _request: Request, stop: Exception) -> Response:
        assert isinstance(stop, Stop)
        return stop.answer

    def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, IfasError)
        log.warning("%s: %s", request.url.path[:80], type(error).__name__)
        status = {GateError: 404, ConfigError: 400, DataError: 409}.get(type(error), 503)
        return self._problem(request, status, error.what, error.fix)

    def _http(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return self._problem(request, error.status_code, str(error.detail), "")

    def _invalid(self, request: Request, _error: Exception) -> Response:
        return self._problem(request, 400, "This request can't be understood.", "Go back to the page and try again.")


_BY_PROXY = {
    "what": "You are not signed in, or in no group that may see this page.",
    "fix": "Open this page by its proxy; ask who set it up for a group in review.roles.",
}


def _place(given: str) -> str:
    return given if PLACE.fullmatch(given) else "/"


def _address(request: Request) -> str:
    """The address that the connection comes from; never one that a header names."""
    return request.client.host if request.client else ""
