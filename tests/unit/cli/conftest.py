"""One registry with the drawn dataset, and the command in this process, for all tests of the command line."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chain_fixtures import config, registry  # noqa: F401 - fixtures


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def ifas(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Done]:
    """Runs `ifas` through its entry point, in an empty folder."""
    from ifas.cli.main import main

    monkeypatch.chdir(tmp_path)
    # What is printed by rich is not wrapped.
    monkeypatch.setenv("COLUMNS", "1000")

    def run(*arguments: str) -> Done:
        monkeypatch.setattr("sys.argv", ["ifas", *arguments])
        environment = dict(os.environ)
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else 0 if done.code is None else 1
        assert {k: v for k, v in os.environ.items() if k.startswith("IFAS")} == {
            k: v for k, v in environment.items() if k.startswith("IFAS")
        }
        return Done(code, *capfd.readouterr())

    return run
