"""The registry on a real S3 server (SeaweedFS), one that fails in the middle of a push included: a clear error, nothing
half-published, and the next call completes."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from ifas.core.errors import RegistryError
from ifas.core.files import sha256_tree
from ifas.data.pack import pack
from ifas.data.registry import Registry
from tests.servers import Endpoint, free_port
from tests.unit.data.pictures import folder_dataset
from tests.unit.data.test_registry import packed, state

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one(s3_server: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry on S3 with one revision, and the dataset beside it."""
    root = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as credentials:
        for name, value in s3_server.env.items():
            credentials.setenv(name, value)
        registry = Registry.init(root / "registry", f"s3://{s3_server.bucket}/data", endpoint=s3_server.url)
        assert registry.publish(packed(root, 1)).tag == "tiny/v1"
    return root


@pytest.fixture
def registry(one: Path, s3_server: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """That registry, with the credentials set."""
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return Registry(one / "registry")


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_publish_to_and_fetch_from_s3(
    registry: Registry, s3_server: Endpoint, one: Path, tmp_path: Path, scheme: str
) -> None:
    fetched = Registry(f"{scheme}{registry.path}").fetch("tiny", "v1", tmp_path / "out")
    assert sha256_tree(tmp_path / "out") == sha256_tree(one / "tiny-1")
    assert fetched.revision == registry.resolve("tiny")
    config = (Path(registry.path) / ".dvc/config").read_text()
    assert s3_server.url in config
    assert s3_server.secret_key not in config


def test_wrong_and_missing_credentials(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state(Path(registry.path))
    fresh = packed(tmp_path, 2)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    for attempt in (lambda: registry.fetch("tiny", "HEAD", tmp_path / "out"), lambda: registry.publish(fresh)):
        with pytest.raises(RegistryError, match="refuses these credentials") as error:
            attempt()
        assert "s3://" in error.value.what
        assert "not-the-secret" not in str(error.value)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(RegistryError, match="set AWS_ACCESS_KEY_ID"):
        registry.fetch("tiny", "HEAD", tmp_path / "out")
    assert state(Path(registry.path)) == before
    assert not (tmp_path / "out").exists()


def test_a_server_that_is_down_and_comes_back(registry: Registry, s3_server: Endpoint, tmp_path: Path) -> None:
    url, fresh = f"s3://{s3_server.bucket}/data", packed(tmp_path, 3)
    Registry.init(Path(registry.path), url, endpoint=f"http://127.0.0.1:{free_port()}")
    before = state(Path(registry.path))
    with pytest.raises(RegistryError, match="Could not connect") as error:
        registry.publish(fresh)
    assert url in error.value.what
    assert "remote runs" in error.value.fix
    assert state(Path(registry.path)) == before
    Registry.init(Path(registry.path), "s3://no-such-bucket/data", endpoint=s3_server.url)
    with pytest.raises(RegistryError, match="create the bucket"):
        registry.publish(fresh)
    Registry.init(Path(registry.path), url, endpoint=s3_server.url)
    assert registry.publish(fresh).tag == "tiny/v2"


class Flaky:
    """A TCP proxy before an S3 server. Once `left` uploads are through, it answers further ones with an error.

    Attributes:
        left: uploads that still get through; None lets all.
        how: `status` answers 500, `reset` hangs up.
    """

    def __init__(self, port: int) -> None:
        self.behind, self.left, self.how, self.refused = port, None, "status", 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.behind)) as server:
            back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
            back.start()
            while True:
                try:
                    data = client.recv(65536)
                except OSError:
                    return
                if not data:
                    return
                if data.startswith(b"PUT ") and self.left is not None:
                    if self.left <= 0:
                        self.refused += 1
                        if self.how == "status":
                            body = b"<Error><Code>InternalError</Code></Error>"
                            head = f"HTTP/1.1 500 Internal Server Error\r\nContent-Length: {len(body)}\r\n"
                            client.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
                        return
                    self.left -= 1
                server.sendall(data)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass


@pytest.mark.parametrize("how", ["status", "reset"])
def test_errors_in_the_middle_of_a_push(
    s3_server: Endpoint, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    raw = folder_dataset(tmp_path / "raw", subjects=3, domains=("desk", "door", "hall"))
    pack("folder", raw, tmp_path / "packed", name="tiny", licence="x", shard_bytes=9_000)
    shards = len(list((tmp_path / "packed" / "shards").iterdir()))
    assert shards > 5
    proxy = Flaky(int(s3_server.url.rpartition(":")[2]))
    remote = f"s3://{s3_server.bucket}/{how}"
    registry = Registry.init(tmp_path / "registry", remote, endpoint=f"http://127.0.0.1:{proxy.port}")
    before = state(tmp_path / "registry")
    proxy.left, proxy.how = 3, how
    with pytest.raises(RegistryError) as error:
        registry.publish(tmp_path / "packed")
    assert proxy.refused > 0
    assert remote in error.value.what
    assert error.value.fix
    assert s3_server.secret_key not in str(error.value)
    assert state(tmp_path / "registry") == before
    # The remote works again: what was pushed is not pushed twice, and the revision is whole.
    proxy.left = 10_000
    assert registry.publish(tmp_path / "packed").tag == "tiny/v1"
    pushed = 10_000 - proxy.left
    assert pushed < shards + 4, "objects that were there are pushed again"
    proxy.left = None
    registry.fetch("tiny", "v1", tmp_path / "fetched")
    assert sha256_tree(tmp_path / "fetched") == sha256_tree(tmp_path / "packed")
