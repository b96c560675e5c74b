"""The key, the accounts and how the command serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ifas.cli.main import app
from ifas.core.config import ReviewConfig
from ifas.core.errors import ConfigError
from ifas.review.key import key_of
from ifas.review.serving import check_address


def test_the_first_start_makes_a_key_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "new" / "review.key"
    made = key_of(str(file))
    assert len(made) == 64
    assert file.stat().st_mode & 0o777 == 0o600
    assert key_of(str(file)) == made
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="others than its owner"):
        key_of(str(file))


def test_a_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "k" * 32)
    assert key_of("env:KEY") == b"k" * 32
    monkeypatch.setenv("KEY", "short-and-shown")
    with pytest.raises(ConfigError) as caught:
        key_of("env:KEY")
    assert "short-and-shown" not in str(caught.value)


@pytest.mark.parametrize(("host", "https", "right"), [
    ("127.0.0.1", False, True), ("localhost", False, True), ("::1", False, True), ("0.0.0.0", True, True),
    ("0.0.0.0", False, False), ("10.0.0.3", False, False), ("review.example", False, False),
])  # fmt: skip
def test_passwords_do_not_cross_a_network_in_the_clear(host: str, https: bool, right: bool) -> None:
    config = ReviewConfig(host=host, https=https)
    if right:
        check_address(config)
    else:
        with pytest.raises(ConfigError, match="unencrypted"):
            check_address(config)


def test_accounts_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IFAS_REVIEW", f"sqlite:///{tmp_path / 'review.db'}")
    monkeypatch.setenv("PASS", "correct horse battery")

    def ifas(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["review", "account", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    assert ifas("add", "ann", "--role", "reviewer", "--password-env", "PASS") == "ann is reviewer\n"
    listed = ifas("list")
    assert "ann" in listed
    assert "reviewer" in listed
    assert "$argon2" not in listed
    assert ifas("disable", "ann") == "ann is disabled\n"
    assert "disabled" in ifas("list")
