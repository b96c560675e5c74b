"""Signed statements: in-toto (https://in-toto.io/Statement/v1) in DSSE envelopes, by Ed25519 keys.

A stranger who has the public key checks one without ifas's ledger, and with other tools, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.errors import ConfigError, DataError, GateError
from ifas.core.files import first_difference, listing, read_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD = "application/vnd.in-toto+json"
#: What a package's statement says: its tag, the approval and its evidence, and what it was built with.
PACKAGE = "https://ifas.dev/attestations/package/v1"
ATTESTATION_FILE = "attestation.json"
#: Folder of the Bento beside it.
BENTO = "bento"
MADE_BY = "openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out key.pub"


def signed(files: Mapping[str, str], kind: str, predicate: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An envelope with a statement about files.

    Args:
        files: path -> SHA-256.
        kind: predicate type.
        key: private Ed25519 key, PEM (PKCS 8): a file, or `env:NAME` of the variable that holds it.

    Raises:
        ConfigError: no such key.
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in sorted(files.items())],
        "predicateType": kind,
        "predicate": dict(predicate),
    }
    envelope = Envelope(json.dumps(statement, sort_keys=True).encode(), PAYLOAD, {})
    envelope.sign(CryptoSigner(private_key(key)))
    made: dict[str, Any] = envelope.to_dict()
    return made


def opened(file: Path, kind: str, public: Path) -> dict[str, Any]:
    """The statement in an envelope, if the key has signed it.

    Raises:
        GateError: it has not, or the statement is of another kind.
        DataError: no envelope.
        ConfigError: no such key.
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    key = SSlibKey.from_crypto(public_key(public))
    try:
        envelope = Envelope.from_dict(read_json(file))
        envelope.verify([key], threshold=1)
        statement: dict[str, Any] = json.loads(envelope.payload)
        found = (envelope.payload_type, statement["_type"], statement["predicateType"])
    except FileNotFoundError as error:
        raise DataError(f"there is no {file}: nothing was signed", "package with --set package.key=KEY") from error
    except VerificationError as error:
        raise GateError(f"{file} is not signed by the key in {public}", "get the key of who packages models") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is no signed statement: {error}", "package the candidate again") from error
    if found != (PAYLOAD, STATEMENT, kind):
        raise GateError(f"{file} states something else: {', '.join(map(str, found))}", f"what is needed is {kind}")
    return statement


def verify_package(folder: Path, public: Path) -> dict[str, Any]:
    """What was signed about a Bento, if the Bento is just that: every file, and no other.

    Args:
        folder: with `bento/` and `attestation.json`, as `package` writes it.
        public: Ed25519 key, PEM.

    Raises:
        GateError: the key has not signed it, or a file was changed, added or removed since; it is named.
        DataError, ConfigError: no envelope, no key.
    """
    statement = opened(folder / ATTESTATION_FILE, PACKAGE, public)
    said = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
    there = {f"{BENTO}/{name}": file for name, file in listing(folder / BENTO).items()}
    if what := first_difference(there, said):
        raise GateError(f"{what} since {folder} was signed", "do not serve it; package the candidate again")
    predicate: dict[str, Any] = statement["predicate"]
    return predicate


def private_key(reference: str) -> Ed25519PrivateKey:
    """The key that a reference names. Raises ConfigError, which never shows the key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    name = reference.removeprefix("env:")
    try:
        text = os.environ[name].encode() if reference != name else Path(reference).read_bytes()
        key = load_pem_private_key(text, password=None)
    except KeyError:
        raise ConfigError(f"package.key is {reference}, and {name} is not set", "set it to the key, as PEM") from None
    except (OSError, ValueError, TypeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no unencrypted private key in PEM"
        raise ConfigError(f"package.key {reference} can't be used: {said}", f"make one: {MADE_BY}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"package.key {reference} is no Ed25519 key", f"make one: {MADE_BY}")
    return key


def public_key(file: Path) -> Ed25519PublicKey:
    """The key in a PEM file. Raises ConfigError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(file.read_bytes())
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no public key in PEM"
        raise ConfigError(f"key {file} can't be used: {said}", f"keys are made by: {MADE_BY}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"key {file} is no Ed25519 key", f"keys are made by: {MADE_BY}")
    return key
