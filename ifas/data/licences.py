"""Terms under which a dataset is given, and the record of who accepted them: kept in the registry, under git.

licences/<dataset>.json    terms, their SHA-256, accepted by whom and when; a change of the terms asks again
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ifas.core.errors import DataError
from ifas.core.files import read_json, write_json
from ifas.data.dataset import check_name
from ifas.data.dvc_repo import git
from ifas.data.registry import Registry

FOLDER = "licences"


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """Who accepted which terms. `accepted_at` is ISO 8601, UTC."""

    dataset: str
    terms: str
    accepted_by: str
    accepted_at: str


def accepted(registry: Registry, dataset: str, terms: str) -> Acceptance | None:
    """The acceptance of these very terms, or None."""
    file = _file(registry, dataset)
    if not file.is_file():
        return None
    try:
        record = read_json(file)
        same = record["terms_sha256"] == _digest(terms)
        return Acceptance(**{k: str(record[k]) for k in Acceptance.__dataclass_fields__}) if same else None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} is no record of an acceptance: {error!r}", "restore it with git, or remove it"
        ) from error


def accept(registry: Registry, dataset: str, terms: str, by: str) -> Acceptance:
    """Records and commits that a person accepts the terms; an earlier record of the same terms stays.

    Raises:
        DataError: nobody is named, or there are no terms.
    """
    if not terms.strip():
        raise DataError(f"nothing says under which terms {dataset} is given", "pass --licence")
    if not by.strip():
        raise DataError("nobody is named", "pass --accept-licence with your name")
    there = accepted(registry, dataset, terms)
    if there:
        return there
    now = datetime.now(UTC).isoformat(timespec="seconds")
    done = Acceptance(dataset=dataset, terms=terms, accepted_by=by.strip(), accepted_at=now)
    file = _file(registry, dataset)
    file.parent.mkdir(exist_ok=True)
    write_json(file, {**done.__dict__, "terms_sha256": _digest(terms)})
    repo, path = Path(registry.path), file.relative_to(registry.path).as_posix()
    git(repo, "add", "--", path)
    git(repo, "commit", "-q", "-m", f"{dataset}: terms accepted by {done.accepted_by}", "--only", "--", path)
    return done


def _file(registry: Registry, dataset: str) -> Path:
    check_name(dataset)
    return registry.local() / FOLDER / f"{dataset}.json"


def _digest(terms: str) -> str:
    return hashlib.sha256(terms.encode()).hexdigest()
