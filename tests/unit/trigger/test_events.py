"""Reading events: the CloudEvents library reads the request; what it would make up is refused."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from ifas.trigger import events
from tests.servers_trigger import APPROVED, DRIFT, REVISED, SOURCE, event

NOW = datetime.now(UTC)
STRUCTURED = {"content-type": events.STRUCTURED}


def structured(said):
    return events.read(STRUCTURED, json.dumps(said).encode())


def checked(**data):
    kind = data.pop("type", REVISED)
    return events.checked(events.Envelope(id="1", source=SOURCE, type=kind, time=NOW), data, NOW).data


def test_both_modes_give_the_same_event():
    said = event("1")
    headers = {f"ce-{name}": value for name, value in said.items() if name != "data"}
    binary = events.read({"content-type": "application/json", **headers}, json.dumps(said["data"]).encode())
    assert binary == structured(said)


@pytest.mark.parametrize("missing", ["id", "source", "type", "specversion", "time"])
def test_nothing_is_made_up(missing):
    said = event("1")
    del said[missing]
    with pytest.raises(events.Unreadable, match=missing):
        structured(said)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"id": 7},
        {"id": "a b"},
        {"id": "a\n"},
        {"id": "\ud800"},
        {"id": "x" * 201},
        {"source": "\x00"},
        {"type": None},
        {"time": "yesterday"},
        {"time": 5},
        {"time": "2026-01-01T00:00:00"},
        {"specversion": "0.3"},
        {"specversion": "2.0"},
        {"Upper": "x"},
    ],
)
def test_a_wrong_attribute(changes):
    with pytest.raises(events.Unreadable):
        structured({**event("1"), **changes})


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"7", b'"x"', b"{", b"\xff", b"[" * 60_000, b'{"a":' * 10_000, b"NaN"]
)
def test_a_body_that_is_no_event(body):
    with pytest.raises(events.Unreadable):
        events.read(STRUCTURED, body)


@pytest.mark.parametrize(
    "revision",
    [
        "v1\ntrain.steps: 9",
        "v1 --set train.steps=9",
        "v1,train.steps=9",
        "[v1]",
        "{a: 1}",
        "!!python/object/apply:os.system [ls]",
        "--upload-pack=touch /tmp/x",
        "../../etc/passwd",
        "a..b",
        "v1;ls",
        "$(ls)",
        "`ls`",
        "a\x00b",
        "[[RunUUID]]",
        "{{workflow.name}}",
        "",
        "x" * 201,
        7,
        None,
        ["v1"],
        {"a": 1},
    ],
)
def test_a_value_that_would_be_more_than_a_name_is_refused(revision):
    with pytest.raises(events.Invalid, match="revision"):
        checked(dataset="faces", revision=revision)


@pytest.mark.parametrize("revision", ["v1", "0123456789abcdef" * 2, "demo/v1.2", "main", "release-2026_05"])
def test_names_that_git_knows(revision):
    assert checked(dataset="faces", revision=revision).revision == revision


@pytest.mark.parametrize(
    "data",
    [
        {"dataset": "faces"},
        {"dataset": "faces", "revision": "v1", "train.steps": 9},
        {"dataset": "faces", "revision": "v1", "set": ["train.steps=9"]},
        {"type": DRIFT, "dataset": "faces", "revision": "v1", "measure": "ece", "value": float("nan"), "bound": 1.0},
        {"type": DRIFT, "dataset": "faces", "revision": "v1", "measure": "ece", "value": "9", "bound": 1.0},
        {"type": "dev.ifas.unknown"},
        {
            "type": APPROVED,
            "candidate": "0123456789ab",
            "record": "s3://ifas/a",
            "model": "file:///etc",
            "evaluation": "s3://ifas/c",
            "lineage": "s3://ifas/d",
        },
        {
            "type": APPROVED,
            "candidate": "0123456789ab",
            "record": "s3://ifas/a",
            "model": "s3://ifas/../x",
            "evaluation": "s3://ifas/c",
            "lineage": "s3://ifas/d",
        },
    ],
)
def test_data_of_another_shape_is_refused(data):
    with pytest.raises(events.Invalid):
        checked(**data)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "1999-12-31T23:59:59Z"])
def test_a_time_that_is_a_mistake(time):
    envelope = structured(event("1", time=time))[0]
    with pytest.raises(events.Invalid, match="before 2000"):
        events.checked(envelope, event("1")["data"], NOW)


def test_an_event_of_the_future_would_make_later_ones_look_old():
    for minutes, fine in ((4, True), (6, False)):
        envelope = events.Envelope(id="1", source=SOURCE, type=REVISED, time=NOW + timedelta(minutes=minutes))
        if fine:
            events.checked(envelope, event("1")["data"], NOW)
        else:
            with pytest.raises(events.Invalid, match="future"):
                events.checked(envelope, event("1")["data"], NOW)
