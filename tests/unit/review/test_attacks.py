"""What somebody may try who should not decide, not see, or not be believed; and next to it, what they may."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import sqlite3
from typing import Any

import pytest
from itsdangerous import URLSafeSerializer

from ifas.review import comments
from ifas.review.accounts import Accounts
from ifas.review.attempts import OF_ACCOUNT_AND_ADDRESS, WINDOW_S
from tests.unit.review.conftest import PASSWORD, SCRIPT, Site, sign_in, token

BUTTON = 'name="action"'


def picture_of(site: Site, candidate: Any) -> str:
    sample = site.dataset.manifest.loc[site.dataset.manifest["split"] == "test", "sample_id"].iloc[0]
    return f"/candidates/{candidate.id}/pictures/{sample}.jpg"


# Who is not signed in.


def test_nobody_sees_anything_without_signing_in(site: Site, candidate: Any) -> None:
    client = site.client()
    for place in ("/", f"/candidates/{candidate.id}"):
        answer = client.get(place)
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/sign-in?next={place}"
        assert candidate.id not in answer.text
    for place in (picture_of(site, candidate), f"/candidates/{candidate.id}/sweep?at=3"):
        answer = client.get(place)
        assert answer.status_code == 401
        assert b"\xff\xd8" not in answer.content
    for place in ("decision", "comments"):
        assert client.post(f"/candidates/{candidate.id}/{place}", data={"action": "approve"}).status_code == 401
    assert site.ledger.get(candidate.id).state == "pending"


def test_a_picture_is_sent_to_who_is_signed_in_and_never_kept(site: Site, candidate: Any) -> None:
    answer = site.signed_in("vic").get(picture_of(site, candidate))
    assert answer.status_code == 200
    assert answer.content.startswith(b"\xff\xd8")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "sample",
    ["..%2f..%2fledger", "../../../etc/passwd", "0" * 64, "0" * 63, "%00" + "0" * 63, "A" * 64, "x" * 5000, "..", "."],
)
def test_a_picture_id_is_no_path(site: Site, candidate: Any, sample: str) -> None:
    answer = site.signed_in().get(f"/candidates/{candidate.id}/pictures/{sample}.jpg")
    assert answer.status_code == 404
    assert b"\xff\xd8" not in answer.content


def test_an_image_that_was_not_judged_is_not_shown(site: Site, candidate: Any) -> None:
    trained = site.dataset.manifest.loc[site.dataset.manifest["split"] == "train", "sample_id"].iloc[0]
    assert site.signed_in().get(f"/candidates/{candidate.id}/pictures/{trained}.jpg").status_code == 404


def test_an_image_that_was_replaced_is_not_shown(site: Site, candidate: Any) -> None:
    place = picture_of(site, candidate)
    sample = place.rpartition("/")[2].removesuffix(".jpg")
    rows = site.dataset.manifest
    other = rows.index[rows["sample_id"] != sample][0]
    moved = rows.copy()
    moved.loc[moved["sample_id"] == sample, ["shard", "row"]] = list(rows.loc[other, ["shard", "row"]])
    site.dataset = type(site.dataset)(moved, "m", site.dataset.images)
    assert site.signed_in().get(place).status_code == 404


# Forms of others.


@pytest.mark.parametrize("form", [{"token": ""}, {"token": "0" * 64}, {"token": "é"}])
def test_a_form_without_its_token_is_refused(site: Site, candidate: Any, decide_by: Any, form: dict[str, str]) -> None:
    client = site.signed_in()
    assert decide_by(client, candidate.id, "approve", form=form).status_code == 403
    assert site.ledger.get(candidate.id).state == "pending"
    assert decide_by(client, candidate.id, "approve").status_code == 303
    assert site.ledger.get(candidate.id).state == "approved"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://testserver.evil.example"},
        {"origin": "https://testserver"},
        {"origin": "null"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_form_from_another_site_is_refused(
    site: Site, candidate: Any, decide_by: Any, headers: dict[str, str]
) -> None:
    client = site.signed_in()
    assert decide_by(client, candidate.id, "reject", headers=headers).status_code == 403
    assert site.ledger.get(candidate.id).state == "pending"


def test_a_browser_that_hides_the_origin_says_same_origin(site: Site, candidate: Any, decide_by: Any) -> None:
    headers = {"origin": "null", "sec-fetch-site": "same-origin"}
    assert decide_by(site.signed_in(), candidate.id, "reject", headers=headers).status_code == 303


def test_the_token_of_another_person_is_refused(site: Site, candidate: Any, decide_by: Any) -> None:
    other = token(site.signed_in("ada").get("/").text)
    assert decide_by(site.signed_in("ann"), candidate.id, "approve", form={"token": other}).status_code == 403


def test_signing_in_and_out_need_a_token_too(site: Site) -> None:
    client = site.client()
    answer = client.post("/sign-in", data={"name": "ann", "password": PASSWORD})
    assert answer.status_code == 403
    assert sign_in(client, "ann", PASSWORD).status_code == 303
    assert "ann" in client.get("/").text
    inside = site.signed_in()
    assert inside.post("/sign-out", data={"token": "no"}).status_code == 403
    assert inside.get("/").status_code == 200


# Cookies.


def test_a_forged_cookie_is_nobody(site: Site, candidate: Any) -> None:
    client = site.signed_in()
    own = client.cookies["ifas_review"]
    name = URLSafeSerializer(b"another key, as long as it is" * 2, salt="ifas review session").dumps("ann")
    for forged in (name, own[:-3] + "abc", own.partition(".")[0], "ann", ""):
        other = site.client()
        other.cookies.set("ifas_review", forged)
        assert other.get(f"/candidates/{candidate.id}").status_code == 303, forged


def test_a_session_has_a_new_name_after_signing_in_and_is_over_after_signing_out(site: Site) -> None:
    client = site.client()
    client.get("/sign-in")
    before = client.cookies["ifas_review"]
    sign_in(client, "ann", PASSWORD)
    inside = client.cookies["ifas_review"]
    assert inside != before
    planted = site.client()
    planted.cookies.set("ifas_review", before)
    assert planted.get("/").status_code == 303
    assert client.post("/sign-out", data={"token": token(client.get("/").text)}).status_code == 303
    stolen = site.client()
    stolen.cookies.set("ifas_review", inside)
    assert stolen.get("/").status_code == 303


def test_a_disabled_account_is_out_at_once(site: Site) -> None:
    client = site.signed_in()
    Accounts(site.database).disable("ann")
    assert client.get("/").status_code == 303
    assert sign_in(site.client(), "ann", PASSWORD).status_code == 401


def test_a_session_ends(site: Site) -> None:
    client = site.signed_in(session_hours=1e-9)
    assert client.get("/").status_code == 303
    assert site.signed_in(session_hours=1).get("/").status_code == 200


def test_the_cookie_is_strict_and_not_for_scripts(site: Site) -> None:
    cookie = site.client().get("/sign-in").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/" in cookie
    secure = site.client(https=True).get("/sign-in").headers
    assert secure["set-cookie"].startswith("__Host-ifas_review=")
    assert "Secure" in secure["set-cookie"]
    assert "max-age" in secure["strict-transport-security"]


def test_the_database_holds_neither_password_nor_session(site: Site) -> None:
    client = site.signed_in()
    inside = client.cookies["ifas_review"]
    name = json.loads(base64.urlsafe_b64decode(inside.partition(".")[0] + "=="))
    kept = (site.root / "review.db").read_bytes()
    assert PASSWORD.encode() not in kept
    assert b"$argon2id$" in kept
    assert name.encode() not in kept
    assert hashlib.sha256(name.encode()).hexdigest().encode() in kept


# Guessing.


def test_guessing_a_password_is_slowed_down(site: Site) -> None:
    client = site.client()
    for _ in range(OF_ACCOUNT_AND_ADDRESS):
        assert sign_in(client, "ann", "wrong password").status_code == 401
    answer = sign_in(client, "ann", PASSWORD)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) <= WINDOW_S + 1
    # Others are not locked out by it: neither another account here, nor this one elsewhere.
    assert sign_in(client, "ada", PASSWORD).status_code == 303
    client.cookies.clear()
    assert sign_in(client, "ann", PASSWORD).status_code == 429
    assert sign_in(site.client(address="10.0.0.8"), "ann", PASSWORD).status_code == 303
    site.clock.now += WINDOW_S + 1
    assert sign_in(client, "ann", PASSWORD).status_code == 303


def test_an_unknown_name_gets_the_same_answer_and_the_same_work(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from argon2 import PasswordHasher

    verified = []
    verify = PasswordHasher.verify

    def counted(self: Any, hashed: str, password: str) -> Any:
        verified.append(hashed[:30])
        return verify(self, hashed, password)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    client = site.client()
    answers = [sign_in(client, name, "wrong password").text for name in ("ann", "nobody")]
    shown = [text.replace('value="ann"', "").replace('value="nobody"', "") for text in answers]
    assert shown[0] == shown[1]
    assert len(verified) == 2
    assert verified[0] == verified[1]


def test_guessed_names_do_not_fill_memory() -> None:
    from ifas.review import attempts

    counted = attempts.Attempts(lambda: 0.0)
    for i in range(attempts.MOST):
        assert counted.begin(f"name {i}", f"10.0.0.{i}") == 0
    assert len(counted._tried) <= attempts.MOST


def test_many_tries_at_once_are_counted_before_they_are_checked() -> None:
    from ifas.review import attempts

    counted = attempts.Attempts(lambda: 0.0)
    begun = [counted.begin(f"name {i}", "10.0.0.1") for i in range(attempts.OF_ADDRESS + 1)]
    assert begun[:-1] == [0] * attempts.OF_ADDRESS
    assert begun[-1] > 0
    counted.succeeded("name 0", "10.0.0.1")
    assert counted.begin("name 99", "10.0.0.1") == 0


# Rights.


@pytest.mark.parametrize("action", ["approve", "reject", "revoke"])
def test_a_viewer_decides_nothing(site: Site, candidate: Any, decide_by: Any, action: str) -> None:
    client = site.signed_in("vic")
    page = client.get(f"/candidates/{candidate.id}").text
    assert BUTTON not in page
    assert "you are signed in as viewer: reviewers and admins decide" in page
    answer = decide_by(client, candidate.id, action)
    assert answer.status_code == 409
    assert site.ledger.get(candidate.id).state == "pending"
    said = client.post(
        f"/candidates/{candidate.id}/comments", data={"text": "hello", "token": token(client.get("/").text)}
    )
    assert said.status_code == 403


def test_only_known_actions_are_decided(site: Site, candidate: Any, decide_by: Any) -> None:
    for action in ("", "submit", "close", "__init__", "keep"):
        assert decide_by(site.signed_in(), candidate.id, action).status_code == 400


# A proxy.

PROXY = {
    "proxy_header": "X-Forwarded-User",
    "proxy_groups": "X-Forwarded-Groups",
    "trusted_proxies": ("10.0.0.5", "fd00::/8"),
    "roles": {"fas-reviewers": "reviewer", "fas-people": "viewer"},
}
ALICE = {"x-forwarded-user": "alice", "x-forwarded-groups": "all, fas-people, fas-reviewers"}


def test_a_proxy_says_who_it_is(site: Site, candidate: Any, decide_by: Any) -> None:
    client = site.client("10.0.0.5", **PROXY)
    client.headers.update(ALICE)
    assert "alice" in client.get("/").text
    assert decide_by(client, candidate.id, "approve").status_code == 303
    _, history = site.ledger.checked(candidate.id)
    assert history[-1].actor == "alice (review page)"


@pytest.mark.parametrize("address", ["10.0.0.6", "127.0.0.1", "testclient", "::1"])
def test_headers_from_elsewhere_are_not_believed(site: Site, candidate: Any, address: str) -> None:
    client = site.client(address, **PROXY)
    client.headers.update({**ALICE, "x-forwarded-for": "10.0.0.5", "forwarded": "for=10.0.0.5"})
    answer = client.get(f"/candidates/{candidate.id}")
    assert answer.status_code == 401
    assert "alice" not in answer.text
    assert client.post(f"/candidates/{candidate.id}/decision", data={"action": "approve"}).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-user": "alice"},
        {"x-forwarded-user": "alice", "x-forwarded-groups": "others"},
        {"x-forwarded-user": "policy <b>", "x-forwarded-groups": "fas-reviewers"},
        {"x-forwarded-user": "", "x-forwarded-groups": "fas-reviewers"},
    ],
)
def test_a_name_without_a_group_or_a_strange_one_is_nobody(site: Site, headers: dict[str, str]) -> None:
    client = site.client("10.0.0.5", **PROXY)
    client.headers.update(headers)
    assert client.get("/").status_code == 401


def test_a_header_that_comes_twice_says_nothing(site: Site) -> None:
    client = site.client("10.0.0.5", **PROXY)
    for twice in ("x-forwarded-user", "x-forwarded-groups"):
        headers = [*ALICE.items(), (twice, "fas-reviewers")]
        assert client.get("/", headers=headers).status_code == 401


def test_headers_of_a_proxy_are_nothing_where_there_is_none(site: Site) -> None:
    client = site.client("10.0.0.5")
    client.headers.update(ALICE)
    assert client.get("/").status_code == 303


def test_passwords_are_off_behind_a_proxy(site: Site) -> None:
    client = site.client("10.0.0.9", **PROXY)
    answer = client.get("/sign-in")
    assert answer.status_code == 401
    assert "password" not in answer.text.lower()


# What others wrote.


def test_scripts_are_text_everywhere(site: Site, decide_by: Any) -> None:
    first = site.submit(product=f"door {SCRIPT}", name="first")
    client = site.signed_in()
    comments.add(site.database, first.id, f"eve {SCRIPT}", f"look {SCRIPT}")
    assert decide_by(client, first.id, "approve", reason=f"fine {SCRIPT}").status_code == 303
    page = client.get(f"/candidates/{first.id}").text
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4
    for text in (page, client.get("/").text):
        assert "<script>alert" not in text
        assert "&lt;script&gt;" in text
    kept = decide_by(client, first.id, "reject", reason=f'"></textarea>{SCRIPT}')
    assert kept.status_code == 409
    assert "<script>alert" not in kept.text


def test_where_to_go_after_signing_in_is_ours(site: Site, candidate: Any) -> None:
    client = site.client()
    assert (
        sign_in(client, "ann", PASSWORD, next=f"/candidates/{candidate.id}").headers["location"].endswith(candidate.id)
    )
    for place in (
        "//evil.example",
        "https://evil.example/",
        "/\\evil.example",
        "/candidates/../x",
        "javascript:alert(1)",
    ):
        assert sign_in(site.client(), "ann", PASSWORD, next=place).headers["location"] == "/"
        assert 'value="/"' in site.client().get("/sign-in", params={"next": place}).text


def test_too_much_is_not_read(site: Site) -> None:
    client = site.client()
    assert client.post("/sign-in", content=b"x" * 70_000).status_code == 413
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = client.post("/sign-in", content=iter([b"password=" + b"x" * 40_000, b"y" * 40_000]), headers=kind)
    assert answer.status_code in (400, 413)


# Every answer.


@pytest.mark.parametrize(
    "place", ["/", "/sign-in", "/nowhere", "/candidates/x/pictures/y.jpg", "/assets/none.js", "/livez"]
)
def test_every_answer_has_its_headers_and_is_not_kept(site: Site, place: str) -> None:
    for client in (site.client(), site.signed_in()):
        headers = client.get(place).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        for part in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"):
            assert part in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]


def test_assets_may_be_kept(site: Site) -> None:
    for name in ("htmx.min.js", "review.css", "icon.svg"):
        answer = site.client().get(f"/assets/{name}")
        assert answer.status_code == 200
        assert "public" in answer.headers["cache-control"]
    assert site.client().get("/assets/../app.py").status_code == 404
    assert site.client().get("/assets/%2e%2e/app.py").status_code == 404


def test_no_page_has_script_or_style_of_its_own(site: Site, candidate: Any) -> None:
    client = site.signed_in()
    for place in ("/", f"/candidates/{candidate.id}", f"/candidates/{candidate.id}/sweep?at=9"):
        page = client.get(place).text
        assert " style=" not in page
        assert "<style" not in page
        assert page.count("<script") == page.count('<script src="/assets/htmx.min.js"')
        assert " onclick" not in page


def test_the_log_holds_no_reason_and_no_password(
    site: Site, candidate: Any, decide_by: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ifas.review")
    sign_in(site.client(), "ann", "a wrong password")
    decide_by(site.signed_in(), candidate.id, "reject", reason="because of Bob's face")
    assert f"reject candidate {candidate.id}" in caplog.text
    assert "Bob" not in caplog.text
    assert "a wrong password" not in caplog.text


# An altered ledger.


def test_an_altered_ledger_is_said_and_nothing_can_be_decided(site: Site, candidate: Any, decide_by: Any) -> None:
    client = site.signed_in()
    form = {"action": "approve", "reason": "x", "token": token(client.get("/").text)}
    with sqlite3.connect(site.root / "ledger.db") as raw:
        raw.execute("UPDATE candidates SET state = 'approved' WHERE id = ?", (candidate.id,))
    for place in ("/", f"/candidates/{candidate.id}"):
        answer = client.get(place)
        assert answer.status_code == 409
        assert "was altered at" in answer.text
        assert "restore it from a backup" in answer.text
        assert BUTTON not in answer.text
    assert client.post(f"/candidates/{candidate.id}/decision", data=form).status_code == 409
    # Who is not signed in is told nothing of it.
    assert "altered" not in site.client().get("/").text


def test_comments_can_only_be_added(site: Site, candidate: Any) -> None:
    comments.add(site.database, candidate.id, "ann", "I looked at the masks")
    with sqlite3.connect(site.root / "review.db") as raw:
        for statement in ("UPDATE review_comments SET text = 'x'", "DELETE FROM review_comments"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                raw.execute(statement)
