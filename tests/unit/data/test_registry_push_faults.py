"""The S3 remote fails in the middle of a push: a clear error, nothing half-published, and the next call completes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ifas.core.errors import RegistryError
from ifas.core.files import sha256_tree
from ifas.data.pack import pack
from ifas.data.registry import Registry
from tests.servers import Endpoint, s3_server
from tests.unit.data.pictures import folder_dataset
from tests.unit.data.test_registry import state

pytestmark = pytest.mark.slow


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


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.mark.parametrize("how", ["status", "reset"])
def test_errors_in_the_middle_of_a_push(
    endpoint: Endpoint, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in endpoint.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    raw = folder_dataset(tmp_path / "raw", subjects=3, domains=("desk", "door", "hall"))
    pack("folder", raw, tmp_path / "packed", name="tiny", licence="x", shard_bytes=9_000)
    shards = len(list((tmp_path / "packed" / "shards").iterdir()))
    assert shards > 5
    proxy = Flaky(int(endpoint.url.rpartition(":")[2]))
    remote = f"s3://{endpoint.bucket}/{how}"
    registry = Registry.init(tmp_path / "registry", remote, endpoint=f"http://127.0.0.1:{proxy.port}")
    before = state(tmp_path / "registry")
    proxy.left, proxy.how = 3, how
    with pytest.raises(RegistryError) as error:
        registry.publish(tmp_path / "packed")
    assert proxy.refused > 0
    assert remote in error.value.what
    assert error.value.fix
    assert endpoint.secret_key not in str(error.value)
    assert state(tmp_path / "registry") == before
    # The remote works again: what was pushed is not pushed twice, and the revision is whole.
    proxy.left = 10_000
    assert registry.publish(tmp_path / "packed").tag == "tiny/v1"
    pushed = 10_000 - proxy.left
    assert pushed < shards + 4, "objects that were there are pushed again"
    proxy.left = None
    registry.fetch("tiny", "v1", tmp_path / "fetched")
    assert sha256_tree(tmp_path / "fetched") == sha256_tree(tmp_path / "packed")
