import pytest

from ifas.core.config import RunConfig, load
from tests import toy_dataset


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    """A registry with one revision of the drawn dataset, on a local remote."""
    from ifas.data.pack import pack
    from ifas.data.registry import Registry

    root = tmp_path_factory.mktemp("registry")
    pack("folder", toy_dataset.make(root / "raw"), root / "packed", name="toy")
    registry = Registry.init(root / "registry")
    registry.publish(root / "packed")
    return registry


@pytest.fixture
def config(registry, tmp_path) -> RunConfig:
    """The tiny profile on the drawn dataset, with a ledger of its own."""
    return load(
        "tiny",
        [
            f"ingest.registry={registry.path}",
            "ingest.dataset=toy",
            f"gate.ledger=sqlite:///{tmp_path / 'ledger.db'}",
        ],
    )
