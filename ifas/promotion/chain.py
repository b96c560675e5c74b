"""The hash chain of the ledger. The hash of a decision covers the hash of the one before, so that edits are detected.

The hashes hold no secret. Somebody who may write to the whole database can remove the newest decisions with all that
they changed, or recompute every hash, and the chain is valid again: `witness` keeps what shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ifas.core.files import sha256_json

#: Fields of a decision that its hash covers, in the order of the table.
SEALED = (
    "seq",
    "candidate_id",
    "from_state",
    "to_state",
    "actor",
    "reason",
    "evidence_sha256",
    "record_sha256",
    "at",
    "previous",
)

#: Fields of a candidate that never change; `record_sha256` of its decisions covers them.
RECORD = (
    "id",
    "product",
    "run_id",
    "created",
    "model_sha256",
    "evidence_sha256",
    "dataset_revision",
    "evidence",
    "metrics",
    "decision",
    "facts",
)


def link(decision: Mapping[str, Any]) -> str:
    """Hash of one decision. Entries of older versions have no statement, and neither has one that nobody signed."""
    sealed = {name: decision[name] for name in SEALED}
    return sha256_json(sealed | ({"statement": signed} if (signed := decision.get("statement")) is not None else {}))


def record(candidate: Mapping[str, Any]) -> str:
    """Hash of a candidate's unchanging fields."""
    return sha256_json({name: candidate[name] for name in RECORD})


def evidence(product: str, parts: Mapping[str, str], decision: Mapping[str, Any]) -> str:
    """Hash that an approval is bound to: the gate's decision, everything it was made from, and for which product."""
    return sha256_json({"product": product, "evidence": dict(parts), "decision": dict(decision)})
