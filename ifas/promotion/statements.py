"""Signed statements: in-toto (https://in-toto.io/Statement/v1) in DSSE envelopes, by Ed25519 or ECDSA P-256 keys.

A stranger who has the public key checks one without ifas's ledger, and with other tools, too.
"""

from __future__ import annotations

import base64
import copy
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.errors import ConfigError, DataError, GateError, IfasError
from ifas.core.files import first_difference, listing, read_json
from ifas.promotion import kms

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from securesystemslib.signer import Signer  # type: ignore[attr-defined]

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
        key: reference of the private key; see `signer`.

    Raises:
        ConfigError: no such key.
    """
    from securesystemslib.dsse import Envelope

    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in sorted(files.items())],
        "predicateType": kind,
        "predicate": dict(predicate),
    }
    envelope = Envelope(json.dumps(statement, sort_keys=True).encode(), PAYLOAD, {})
    try:
        envelope.sign(signer(key))
    except IfasError:
        raise
    except Exception as error:
        if not kms.is_uri(key):
            raise
        raise kms.failed(key, error) from None
    made: dict[str, Any] = envelope.to_dict()
    return made


def opened(file: Path, kind: str, public: Path) -> dict[str, Any]:
    """The statement in an envelope, if the key has signed it.

    Raises:
        GateError: it has not, or the statement is of another kind.
        DataError: no envelope.
        ConfigError: no such key.
    """
    key = public_pem_of(public)
    try:
        envelope = read_json(file)
    except FileNotFoundError as error:
        raise DataError(f"there is no {file}: nothing was signed", "package with --set package.key=KEY") from error
    except ValueError as error:
        raise DataError(f"{file} is no signed statement: {error}", "package the candidate again") from error
    return verified(envelope, kind, [key], str(file))


def verified(envelope: Any, kind: str, keys: Sequence[str], what: str) -> dict[str, Any]:
    """The statement in an envelope, if one of the public keys (PEM) has signed it.

    Raises:
        GateError: none has, or the statement is of another kind.
        DataError: no envelope.
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import Key, SSlibKey  # type: ignore[attr-defined]

    trusted = list[Key](SSlibKey.from_crypto(_loaded(pem)) for pem in keys)
    try:
        opened = Envelope.from_dict(copy.deepcopy(dict(envelope)))  # it takes apart what it is given
        opened.verify(trusted, threshold=1)
        statement: dict[str, Any] = json.loads(opened.payload)
        found = (opened.payload_type, statement["_type"], statement["predicateType"])
    except VerificationError as error:
        raise GateError(
            f"{what} is not signed by the key that was given for it", "get the key of who signed"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{what} is no signed statement: {error}", "have it signed again") from error
    if found != (PAYLOAD, STATEMENT, kind):
        raise GateError(f"{what} states something else: {', '.join(map(str, found))}", f"what is needed is {kind}")
    return statement


def unverified(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """What an envelope says, whoever made it; empty where it says nothing. For finding the keys to check it with."""
    try:
        found = json.loads(base64.b64decode(envelope["payload"], validate=True))
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("predicate"), dict) else {}


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


def shown(reference: str) -> str:
    """A reference for an error message: never a key that was given in its place."""
    given_as_text = "-----" in reference or "\n" in reference or len(reference) > 255
    return "the key given as text" if given_as_text else f"key {reference}"


def signer(reference: str) -> Signer:
    """What signs with the private key that a reference names.

    Args:
        reference: a file or `env:NAME` of the variable that holds it, PEM (PKCS 8); or a URI of a key management
            service, see `kms`.

    Raises:
        ConfigError: no such key, or of another kind than Ed25519 or ECDSA P-256. It never shows the key.
    """
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

    return kms.signer_at(reference) if kms.is_uri(reference) else CryptoSigner(_private_key(reference))


def _private_key(reference: str) -> Ed25519PrivateKey | EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    name = reference.removeprefix("env:")
    try:
        text = os.environ[name].encode() if reference != name else Path(reference).read_bytes()
        key = load_pem_private_key(text, password=None)
    except KeyError:
        raise ConfigError(f"{shown(reference)}: no such variable is set", "set it to the key, as PEM") from None
    except (OSError, ValueError, TypeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no unencrypted private key in PEM"
        raise ConfigError(f"{shown(reference)} can't be used: {said}", f"name a file; make one: {MADE_BY}") from None
    if isinstance(key, Ed25519PrivateKey) or (
        isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)
    ):
        return key
    raise ConfigError(f"{shown(reference)} is no Ed25519 key, and no ECDSA P-256 key", f"make one: {MADE_BY}")


def public_pem(reference: str) -> str:
    """The public key, PEM, of a private one. Raises as `signer`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = signer(reference).public_key
    public = str(key.keyval["public"])
    if key.keytype == "ed25519":
        return _pem(Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)))
    return _pem(_loaded(public))


def public_pem_of(source: Path | str) -> str:
    """A public key as PEM, from a file, or from a text that is PEM already. Raises ConfigError."""
    text = str(source)
    try:
        return _pem(_loaded(text if "-----BEGIN" in text else Path(source).read_text(encoding="ascii")))
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no public key in PEM"
        raise ConfigError(f"{shown(text)} can't be used: {said}", f"keys are made by: {MADE_BY}") from None
    except ConfigError as error:
        raise ConfigError(f"{shown(text)} can't be used: {error.what}", error.fix) from None


def raw(pem: str) -> bytes:
    """The bytes of a public key, which are the same however its PEM was written. Raises ConfigError."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return _loaded(pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _pem(key: Ed25519PublicKey | EllipticCurvePublicKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _loaded(pem: str) -> Ed25519PublicKey | EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem.encode())
    except ValueError as error:
        raise ConfigError("it is no public key in PEM", f"keys are made by: {MADE_BY}") from error
    if isinstance(key, Ed25519PublicKey) or (
        isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    ):
        return key
    raise ConfigError("it is no Ed25519 key, and no ECDSA P-256 key", f"keys are made by: {MADE_BY}")
