"""The client's errors; a real server is asked in e2e."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ifas.core.errors import FaceRefused, ImageRefused, LaunchError
from ifas.serving.client import ask, serve


@pytest.fixture
def answering():
    """A local HTTP server that answers with the given statuses, one after another."""
    servers = []

    def start(*answers):
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                status, body, *retry_after = left.pop(0)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for value in retry_after:
                    self.send_header("Retry-After", value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_busy_service_is_asked_again(answering):
    url = answering((429, {"error": "Too many requests"}), (503, b"busy"), (200, {"verdict": "live"}))
    assert ask(url, b"p") == {"verdict": "live"}


def test_a_service_that_stays_busy(answering):
    url = answering(*[(429, {"error": "Too many requests"})] * 100)
    with pytest.raises(LaunchError, match="429: Too many"):
        ask(url, b"p", timeout=1)


def test_a_busy_service_says_when(answering):
    url = answering((429, {"error": "busy"}, "1"), (200, {"verdict": "live"}))
    begin = time.monotonic()
    assert ask(url, b"p") == {"verdict": "live"}
    assert time.monotonic() - begin > 1


def test_a_wait_longer_than_the_caller_has_is_not_begun(answering):
    url = answering((503, {"error": "busy"}, "3600"))
    begin = time.monotonic()
    with pytest.raises(LaunchError, match="503: busy"):
        ask(url, b"p", timeout=30)
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("said", ["Fri, 31 Dec 1999 23:59:59 GMT", "-5", "\u0663", "9" * 400, ""])
def test_a_time_that_is_no_number_of_seconds_is_ignored(answering, said):
    url = answering((429, {"error": "busy"}, said.encode().decode("latin-1")), (200, {"verdict": "live"}))
    assert ask(url, b"p", timeout=10) == {"verdict": "live"}


def test_refusals_carry_the_services_words(answering):
    url = answering((400, {"error": "image can't be decoded", "fix": "send a whole file"}))
    with pytest.raises(ImageRefused, match="image can't be decoded") as caught:
        ask(url, b"p")
    assert caught.value.fix == "send a whole file"
    assert caught.value.reason == "unreadable"


def test_a_refusal_carries_its_reason(answering):
    with pytest.raises(FaceRefused, match="no face was found") as caught:
        ask(answering((400, {"error": "no face was found", "fix": "", "reason": "no_face"})), b"p")
    assert caught.value.reason == "no_face"


@pytest.mark.parametrize("body", [b"", b"oops", b"[1]", {"detail": "x"}])
def test_a_server_error_of_any_form(answering, body):
    with pytest.raises(LaunchError, match="answered 500"):
        ask(answering((500, body)), b"p")


def test_an_answer_that_is_no_json(answering):
    with pytest.raises(LaunchError, match="no answer"):
        ask(answering((200, b"<html>")), b"p")


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(LaunchError, match="no answer from"):
        ask(f"http://127.0.0.1:{port}", b"p")


def test_a_picture_that_is_not_there(tmp_path):
    with pytest.raises(ImageRefused, match=r"no\.jpg can't be read"):
        ask("http://127.0.0.1:1", tmp_path / "no.jpg")


def test_a_folder_without_a_bento(tmp_path):
    with pytest.raises(LaunchError, match="holds no Bento"), serve(tmp_path):
        pass


def test_a_port_that_is_taken(tmp_path):
    (tmp_path / "bento.yaml").write_text("")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(LaunchError, match="is taken"), serve(tmp_path, port=taken.getsockname()[1]):
            pass


def test_a_server_that_ends_shows_its_log(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "bento.yaml").write_text("name: broken\nversion: '1'\n")
    with pytest.raises(LaunchError, match="ended with code") as caught, serve(tmp_path, timeout=60):
        pass
    assert "Error" in caught.value.what
