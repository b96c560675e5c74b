"""A registry at a git server that asks for a password: git's own smart HTTP server behind basic authentication."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from ifas.core.errors import RegistryError
from ifas.data.dvc_repo import PASSWORD_ENV, USERNAME_ENV, clone

# Characters that a shell, a URL or an INI file would read as something else.
USER, PASSWORD = "reader", 'p@ss "w$rd`\\;'


@pytest.fixture
def server(tmp_path):
    """URL of a repository with one commit."""
    work, bare = tmp_path / "work", tmp_path / "served" / "registry.git"
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "init", "-q", str(work)], check=True)
    subprocess.run(["git", "-C", str(work), *author, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True)
    expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args):
            pass

        def do_GET(self):
            self.answer(b"")

        def do_POST(self):
            self.answer(self.rfile.read(int(self.headers["Content-Length"])))

        def answer(self, body):
            if self.headers.get("Authorization") != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()
                return
            parts = urlsplit(self.path)
            env = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(bare.parent),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": parts.path,
                "QUERY_STRING": parts.query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "REMOTE_USER": USER,
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
            }
            found = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=True).stdout
            head, _, content = found.partition(b"\r\n\r\n")
            self.send_response(200)
            for line in head.decode().splitlines():
                name, _, value = line.partition(": ")
                if name != "Status":
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/registry.git"
    running.shutdown()
    running.server_close()


def test_the_secret_s_password_is_used(server, tmp_path, monkeypatch):
    monkeypatch.setenv(USERNAME_ENV, USER)
    monkeypatch.setenv(PASSWORD_ENV, PASSWORD)
    clone(server, tmp_path / "clone")
    assert (tmp_path / "clone" / ".git").is_dir()
    # It is nowhere in the clone, which may be packed into something.
    assert not [f for f in (tmp_path / "clone").rglob("*") if f.is_file() and b"p@ss" in f.read_bytes()]


def test_without_or_with_a_wrong_one_it_says_so(server, tmp_path, monkeypatch):
    with pytest.raises(RegistryError, match="can't be cloned"):
        clone(server, tmp_path / "none")
    monkeypatch.setenv(USERNAME_ENV, USER)
    monkeypatch.setenv(PASSWORD_ENV, "sesame")
    with pytest.raises(RegistryError, match="Authentication failed") as caught:
        clone(server, tmp_path / "wrong")
    assert "sesame" not in str(caught.value)
