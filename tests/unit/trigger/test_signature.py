"""Signatures as Standard Webhooks has them, over the attributes too where these are headers."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from ifas.core.errors import ConfigError
from ifas.trigger.signature import Unsigned, keys_of, keys_of_each, sign, verify
from tests.servers_trigger import KEY, OTHER_KEY, SECRETS

STRUCTURED = {"content-type": "application/cloudevents+json"}
BINARY = {"content-type": "application/json", "ce-id": "1", "ce-type": "t", "ce-source": "/s"}


@pytest.mark.parametrize("headers", [STRUCTURED, BINARY])
def test_what_was_signed_is_accepted_and_nothing_else(headers):
    signed = {**headers, **sign(headers, b"{}", KEY)}
    verify(signed, b"{}", [KEY])
    verify(signed, b"{}", [OTHER_KEY, KEY])
    with pytest.raises(Unsigned):
        verify(signed, b"{}", [OTHER_KEY])
    with pytest.raises(Unsigned):
        verify(signed, b"{} ", [KEY])


@pytest.mark.parametrize("name", ["ce-id", "ce-type", "ce-source", "content-type", "webhook-id", "webhook-timestamp"])
def test_a_changed_header_breaks_the_signature(name):
    signed = {**BINARY, **sign(BINARY, b"{}", KEY)}
    with pytest.raises(Unsigned):
        verify({**signed, name: signed[name] + "1"}, b"{}", [KEY])
    with pytest.raises(Unsigned):
        verify({**signed, "ce-added": "1"}, b"{}", [KEY])


@pytest.mark.parametrize("minutes", [-6, 6])
def test_an_old_request_and_one_of_the_future_are_refused(minutes):
    signed = {**STRUCTURED, **sign(STRUCTURED, b"{}", KEY, datetime.now(UTC) + timedelta(minutes=minutes))}
    with pytest.raises(Unsigned, match="too old" if minutes < 0 else "too new"):
        verify(signed, b"{}", [KEY])


@pytest.mark.parametrize("minutes", [-4, 4])
def test_clocks_may_differ_by_some_minutes(minutes):
    verify({**STRUCTURED, **sign(STRUCTURED, b"{}", KEY, datetime.now(UTC) + timedelta(minutes=minutes))}, b"{}", [KEY])


@pytest.mark.parametrize("value", ["", "v1", "v1,", "v1,!", "v2,AAAA", "v1,\udc80", ",", "v1,AAAA v1", "v1a,AAAA"])
def test_a_broken_signature_is_refused(value):
    with pytest.raises(Unsigned):
        verify({**STRUCTURED, **sign(STRUCTURED, b"{}", KEY), "webhook-signature": value}, b"{}", [KEY])


@pytest.mark.parametrize("value", ["", "x", "nan", "inf", "-1", "1e400", "9" * 40])
def test_a_broken_time_is_refused(value):
    with pytest.raises(Unsigned):
        verify({**STRUCTURED, **sign(STRUCTURED, b"{}", KEY), "webhook-timestamp": value}, b"{}", [KEY])


def test_bytes_that_are_no_text(monkeypatch):
    with pytest.raises(Unsigned):
        verify({**STRUCTURED, **sign(STRUCTURED, b"{}", KEY)}, b"\xff", [KEY])


def test_secrets_come_from_the_environment_the_new_one_beside_the_old(monkeypatch):
    monkeypatch.setenv("S", " ".join(SECRETS.values()))
    assert keys_of("S") == [KEY, OTHER_KEY]


@pytest.mark.parametrize(("value", "said"), [("", "not set"), ("whsec_!", "base64"), ("whsec_c2hvcnQ=", "24 bytes")])
def test_a_wrong_secret_is_named_but_not_shown(monkeypatch, value, said):
    monkeypatch.setenv("S", value)
    with pytest.raises(ConfigError, match=said) as raised:
        keys_of("S")
    assert not value or value not in str(raised.value)


def test_two_senders_never_share_a_secret(monkeypatch):
    for name, secret in (("A", "a"), ("B", "b"), ("C", "a")):
        monkeypatch.setenv(name, "whsec_" + base64.b64encode(secret.encode() * 32).decode())
    assert len(keys_of_each({"one": "A", "two": "B"})) == 2
    for shared in ("A", "C"):
        with pytest.raises(ConfigError, match="one and two have the same secret"):
            keys_of_each({"one": "A", "two": shared})
