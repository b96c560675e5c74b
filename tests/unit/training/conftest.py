"""One process group of one rank for the tests that train in this process."""

import os
import socket

import pytest


@pytest.fixture(scope="session")
def alone() -> None:
    """This process is rank 0 of 1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(
        RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
