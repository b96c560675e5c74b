"""The key of cookies and forms: from the environment, or a file that the first start makes."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from ifas.core.errors import ConfigError

LEAST = 32


def key_of(reference: str) -> bytes:
    """The key that `env:NAME` or a file holds. A file that is not there is made, readable by its owner only.

    Raises:
        ConfigError: it is not set, too short, can't be read, or others may read the file. The key is never shown.
    """
    name = reference.removeprefix("env:")
    if name != reference:
        key = os.environ.get(name, "").strip().encode()
        if len(key) < LEAST:
            raise ConfigError(
                f"review.key is {reference}, which is not set to {LEAST} characters or more",
                f"set {name} to what this prints: openssl rand -hex 32",
            )
        return key
    file = Path(reference)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(made, "w", encoding="ascii") as out:
                out.write(secrets.token_hex(32))
        if file.stat().st_mode & 0o077:
            raise ConfigError(f"others than its owner may read {file}, the key of the review page", f"chmod 600 {file}")
        key = file.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"the key of the review page, {file}, can't be used: {error.strerror}", "set review.key to another file"
        ) from error
    if len(key) < LEAST:
        raise ConfigError(f"{file} is too short for a key", "remove it: the next start makes one")
    return key
