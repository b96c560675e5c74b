"""Storage URIs against a real S3 server."""

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ifas.core import storage
from ifas.core.errors import DataError, StoreAway
from ifas.core.files import sha256_tree
from tests.servers import s3_server


def test_folder_and_file_round_trip(s3, tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_bytes(b"1" * 1000)
    (folder / "sub" / "b").write_bytes(b"2")
    storage.store(folder, f"s3://{s3.bucket}/x/folder")
    storage.store(folder / "a", f"s3://{s3.bucket}/x/file")
    assert sha256_tree(storage.fetch(f"s3://{s3.bucket}/x/folder", tmp_path / "back")) == sha256_tree(folder)
    assert storage.fetch(f"s3://{s3.bucket}/x/file", tmp_path / "file").read_bytes() == b"1" * 1000


def test_nothing_there_is_said(s3, tmp_path):
    with pytest.raises(DataError, match="nothing at s3://"):
        storage.fetch(f"s3://{s3.bucket}/nowhere", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_store_that_is_down_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "never-shown")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(DataError, match="can't be used") as raised:
        storage.fetch("s3://b/x", tmp_path / "x")
    assert "never-shown" not in str(raised.value)


def test_local_path_is_used_in_place(tmp_path):
    assert storage.fetch(str(tmp_path), tmp_path / "x") == tmp_path
    with pytest.raises(DataError, match="does not exist"):
        storage.fetch(str(tmp_path / "gone"), tmp_path / "x")


FETCH = """
import sys
from ifas.core import storage
print(storage.here(sys.argv[1]))
"""


def test_all_processes_of_a_machine_share_one_checked_copy(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("IFAS_EVENTS", str(tmp_path / "events"))
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "b").write_bytes(b"2" * 100_000)
    uri = f"s3://{s3.bucket}/once/folder"
    storage.store(folder, uri)
    pin = storage.pin(uri)
    assert pin == f"{uri}#sha256={sha256_tree(folder)}"
    home = tmp_path / "other"
    env = {**os.environ, "IFAS_HOME": str(home)}
    both = [
        subprocess.Popen([sys.executable, "-c", FETCH, pin], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0].strip() for process in both]
    assert said == [str(home / "fetched" / sha256_tree(folder))] * 2
    assert sha256_tree(home / "fetched" / sha256_tree(folder)) == sha256_tree(folder)
    notes = [json.loads(line).get("text", "") for line in (tmp_path / "events").read_text().splitlines()]
    assert sum("verified" in note for note in notes) == 2, "one by `pin` in this process's home, one by the two"
    storage.delete(uri)
    monkeypatch.setenv("IFAS_HOME", str(home))
    assert storage.here(pin) == home / "fetched" / sha256_tree(folder), "it is here: the store is not asked"


def test_what_is_not_as_pinned_is_refused(s3, tmp_path):
    (tmp_path / "file").write_text("one")
    uri = f"s3://{s3.bucket}/pinned/file"
    storage.store(tmp_path / "file", uri)
    pin = storage.pin(uri)
    (tmp_path / "file").write_text("two")
    for changed in (pin.replace(uri, str(tmp_path / "file")), f"{uri}#sha256={sha256_tree(tmp_path / 'file')}"):
        with pytest.raises(DataError, match="is not what it should be"):
            storage.here(changed)
    assert storage.here(pin).read_text() == "one"


@pytest.fixture
def answers(monkeypatch):
    """What a store of its own answers to the next requests: (status, code), the last one again and again."""
    told = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # else the client waits for a 100 before it sends the body

        def log_message(self, *_args):
            pass

        def do_PUT(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            status, code = told.pop(0) if len(told) > 1 else told[0]
            body = f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode() if code else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "k")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(storage, "_PAUSE", 0.02)
    yield told
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "busy",
    [(500, "InternalError"), (502, "BadGateway"), (503, "SlowDownWrite"), (503, "ServiceUnavailable")],
)
def test_a_store_that_has_trouble_is_waited_for(answers, tmp_path, busy):
    (tmp_path / "file").write_text("x")
    answers += [busy] * 3 + [(200, "")]
    with storage.patient(30):
        storage.store(tmp_path / "file", "s3://b/file")
    answers[:] = [busy]
    with pytest.raises(StoreAway):
        storage.store(tmp_path / "file", "s3://b/file")


@pytest.mark.parametrize(
    "refusal",
    [
        (403, "InvalidAccessKeyId"),
        (403, "QuotaExceeded"),
        (404, "NoSuchBucket"),
        (507, "InsufficientStorage"),
        (507, "XMinioStorageFull"),
        (503, "XMinioStorageFull"),
    ],
)
def test_a_store_that_refuses_is_not_waited_for(answers, tmp_path, refusal):
    (tmp_path / "file").write_text("x")
    answers.append(refusal)
    began = time.monotonic()
    with storage.patient(30), pytest.raises(DataError, match="can't be used") as caught:
        storage.store(tmp_path / "file", "s3://b/file")
    assert not caught.value.repeat
    assert time.monotonic() - began < 20


def test_work_that_has_begun_waits_for_a_store_that_went_away(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("IFAS_EVENTS", str(tmp_path / "events"))
    (tmp_path / "file").write_text("x")
    with s3_server(tmp_path) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        storage.store(tmp_path / "file", f"s3://{server.bucket}/first")
        server.stop()
        with pytest.raises(DataError, match="can't be used"):
            storage.exists(f"s3://{server.bucket}/first")
        back = threading.Timer(6, server.start)
        back.start()
        with storage.patient(60):
            storage.store(tmp_path / "file", f"s3://{server.bucket}/second")
            assert storage.exists(f"s3://{server.bucket}/first")
        with storage.patient(60), pytest.raises(DataError, match="nothing at"):
            storage.fetch(f"s3://{server.bucket}/third", tmp_path / "third")
    notes = [json.loads(line)["text"] for line in (tmp_path / "events").read_text().splitlines()]
    assert "does not answer" in notes[0]
    assert "is back after" in notes[1]
