"""The records of batches, and one change of a dataset at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.errors import DataError
from ifas.core.files import locked, sha256_json
from ifas.data.registry import Registry
from ifas.data.revisions import read_record, require

if TYPE_CHECKING:
    import pandas as pd


def records(registry: Registry, dataset: str) -> dict[str, dict[str, Any]]:
    """The records of all batches of the newest revision, by name. Raises RegistryError."""
    repo = registry.local()
    require(repo, "HEAD", dataset)
    found: dict[str, dict[str, Any]] = (read_record(repo, "HEAD", dataset) or {}).get("batches", {})
    return found


def rows_hash(rows: pd.DataFrame) -> str:
    """SHA-256 over what a batch's rows say, their status apart."""
    columns = ("sample_id", "subject_id", "split", "label", "pai_species", "domain")
    return sha256_json(sorted([str(v) for v in row] for row in rows[list(columns)].itertuples(index=False)))


def person(name: str) -> str:
    """A name without white space around it. Raises DataError where there is none."""
    if not name.strip():
        raise DataError("nobody is named", "pass --by with your name")
    return name.strip()


def now() -> str:
    """The time, ISO 8601, UTC, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def one_at_a_time(registry: Registry) -> Iterator[None]:
    """Between fetching the newest revision and publishing the next, nobody else on this machine adds or releases."""
    folder = Path(registry.path) / ".git"
    if not folder.is_dir():
        raise DataError(f"{registry.path} is not a dataset registry on this machine", "name its folder with --registry")
    with locked(folder / "ifas-batches.lock"):
        yield
