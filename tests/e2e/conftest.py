from tests.chain_fixtures import config, registry  # noqa: F401 - fixtures
