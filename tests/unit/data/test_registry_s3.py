"""The registry on a real S3 server (SeaweedFS)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ifas.core.errors import RegistryError
from ifas.core.files import sha256_tree
from ifas.data.registry import Registry
from tests.servers import Endpoint, free_port, s3_server
from tests.unit.data.test_registry import packed, state

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def one(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry on S3 with one revision, and the dataset beside it."""
    root = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as credentials:
        for name, value in endpoint.env.items():
            credentials.setenv(name, value)
        registry = Registry.init(root / "registry", f"s3://{endpoint.bucket}/data", endpoint=endpoint.url)
        assert registry.publish(packed(root, 1)).tag == "tiny/v1"
    return root


@pytest.fixture
def registry(one: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """That registry, with the credentials set."""
    for name, value in endpoint.env.items():
        monkeypatch.setenv(name, value)
    return Registry(one / "registry")


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_publish_to_and_fetch_from_s3(
    registry: Registry, endpoint: Endpoint, one: Path, tmp_path: Path, scheme: str
) -> None:
    fetched = Registry(f"{scheme}{registry.path}").fetch("tiny", "v1", tmp_path / "out")
    assert sha256_tree(tmp_path / "out") == sha256_tree(one / "tiny-1")
    assert fetched.revision == registry.resolve("tiny")
    config = (Path(registry.path) / ".dvc/config").read_text()
    assert endpoint.url in config
    assert endpoint.secret_key not in config


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


def test_a_server_that_is_down_and_comes_back(registry: Registry, endpoint: Endpoint, tmp_path: Path) -> None:
    url, fresh = f"s3://{endpoint.bucket}/data", packed(tmp_path, 3)
    Registry.init(Path(registry.path), url, endpoint=f"http://127.0.0.1:{free_port()}")
    before = state(Path(registry.path))
    with pytest.raises(RegistryError, match="Could not connect") as error:
        registry.publish(fresh)
    assert url in error.value.what
    assert "remote runs" in error.value.fix
    assert state(Path(registry.path)) == before
    Registry.init(Path(registry.path), "s3://no-such-bucket/data", endpoint=endpoint.url)
    with pytest.raises(RegistryError, match="create the bucket"):
        registry.publish(fresh)
    Registry.init(Path(registry.path), url, endpoint=endpoint.url)
    assert registry.publish(fresh).tag == "tiny/v2"
