"""Settings that must be made before torch is imported, and fixtures that tests of several rooms share."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

from ifas.core.environment import prepare

prepare()

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests import servers
from tests.servers import Endpoint

# The first example may import a library; how long one takes says nothing on a loaded machine.
hypothesis.settings.register_profile("ifas", deadline=None)
hypothesis.settings.load_profile("ifas")

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def _session_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What fixtures of a module or session make, before a test has a home of its own."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("IFAS_HOME", str(tmp_path_factory.mktemp("session-home")))
        yield


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the developer's cache, registry or ledger."""
    monkeypatch.setenv("IFAS_HOME", str(tmp_path_factory.mktemp("home")))
    for name in ("IFAS_LEDGER", "IFAS_EVENTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A real S3 server with one bucket, for all tests of a process: each test uses a prefix of its own."""
    with servers.s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_server: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    """That server, with URL and credentials in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return s3_server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files that take long first; skips what this machine can't run, and says why."""
    import torch

    # Files that take long first: two processes that take whole files then end at about the same time.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no GPU on this machine"))
        if item.get_closest_marker("cluster") and not os.environ.get("KUBECONFIG"):
            item.add_marker(pytest.mark.skip(reason="no cluster: KUBECONFIG is not set"))
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no sample data at {SHARED}"))
