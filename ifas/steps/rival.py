"""The champion that a candidate is compared with: in evaluation, on the same images, and at the gate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ifas.core import storage
from ifas.core.config import RunConfig
from ifas.core.errors import DataError
from ifas.core.files import sha256_tree

if TYPE_CHECKING:
    from ifas.promotion.candidate import Candidate
    from ifas.promotion.ledger import Ledger


def rival_of(ledger: Ledger, product: str, evidence: Mapping[str, str]) -> Candidate | None:
    """The champion that a candidate is compared with; None while a product has none.

    When the champion itself is judged again, that is the model that it replaced, or that one replaced, and so on: the
    first that is another one by the evidence. Its weights with another threshold, other predictions or another policy
    are not the champion itself.

    Args:
        evidence: name -> SHA-256, as much of it as is known.
    """
    champion = ledger.champion(product)
    while champion is not None and all(champion.evidence.get(name) == found for name, found in evidence.items()):
        # Evaluated again by other code, a model may have replaced itself: compared with that, no result is ever reused.
        beaten = champion.facts.get("champion")
        champion = ledger.get(beaten) if beaten else None
    return champion


def rival_of_model(config: RunConfig, model_sha256: str) -> Candidate | None:
    """The champion that a model will meet at the gate, if its own model can be had; None where there is no ledger.

    Raises:
        DataError: the ledger was altered.
        ConfigError, MachineError: it can't be reached. The gate needs it, too; without it nothing would be compared.
    """
    from ifas.database.connection import exists
    from ifas.promotion.upgrade import LEDGER
    from ifas.steps.ledger import ledger_url, open_ledger

    if not exists(ledger_url(config), LEDGER):
        return None
    ledger = open_ledger(config)
    try:
        found = rival_of(ledger, config.gate.product, {"model": model_sha256})
    finally:
        ledger.close()
    place = _place(found, "model") if found else ""
    return found if place and (storage.is_remote(place) or Path(place).exists()) else None


def artifact(candidate: Candidate, name: str) -> Path:
    """An artifact of a candidate's run on this machine, fetched from the object store where it lies in one.

    Raises:
        DataError: it is not there any more, is another one now, or the store can't be reached.
    """
    place = _place(candidate, name)
    if not place or not (storage.is_remote(place) or Path(place).exists()):
        raise gone(candidate, name, place or "any known place")
    path = storage.here(place)
    if name in candidate.evidence and sha256_tree(path) != candidate.evidence[name]:
        raise DataError(
            f"{place} is not the {name} of candidate {candidate.id} any more", "repeat the run, and name its folder"
        )
    return path


def gone(candidate: Candidate, name: str, place: str) -> DataError:
    """The error of an artifact that is not where its candidate's run left it."""
    return DataError(
        f"{name} of candidate {candidate.id} is no longer at {place}",
        "repeat the run (unchanged steps come from the cache) and name its folder with --run",
    )


def _place(candidate: Candidate, name: str) -> str:
    return str(candidate.facts.get("artifacts", {}).get(name, ""))
