"""Keys that never leave a key management service: signers of securesystemslib, by the URIs that it has for them.

    hv:NAME or hv:NAME/VERSION                          HashiCorp Vault or OpenBao, transit: VAULT_ADDR, VAULT_TOKEN
    awskms:KEY                                          AWS
    gcpkms:projects/.../cryptoKeyVersions/VERSION       Google Cloud
    azurekms://VAULT.vault.azure.net/keys/NAME/VERSION  Azure

Each finds its credentials in the environment, as its own tools do. Vault signs with Ed25519, the others with ECDSA
P-256, as far as securesystemslib speaks to them; a key of another kind is refused, as nothing here would verify it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from ifas.core.errors import ConfigError

if TYPE_CHECKING:
    from securesystemslib.signer import Signer  # type: ignore[attr-defined]

#: Scheme of a URI -> the extra of securesystemslib that speaks to its service.
EXTRAS = {"hv": "vault", "awskms": "awskms", "gcpkms": "gcpkms", "azurekms": "azurekms"}
#: Kinds of keys that sign here, as securesystemslib calls them.
SCHEMES = ("ed25519", "ecdsa-sha2-nistp256")


def is_uri(reference: str) -> bool:
    """Whether a reference names a key in a key management service."""
    return reference.partition(":")[0] in EXTRAS


def signer_at(uri: str) -> Signer:
    """The signer behind a URI; the service is asked for the public key.

    Raises:
        ConfigError: a library is missing, the service does not answer or refuses, or the key is of another kind.
    """
    from securesystemslib.exceptions import UnsupportedLibraryError
    from securesystemslib.signer import Signer  # type: ignore[attr-defined]

    scheme = uri.partition(":")[0]
    try:
        exact, public = _imported(scheme, uri)
        if public.scheme in SCHEMES:
            made: Signer = Signer.from_priv_key_uri(exact, public)
            return made
    except UnsupportedLibraryError as error:
        raise ConfigError(
            f"key {uri} can't be used: {error}", f"pip install 'securesystemslib[{EXTRAS[scheme]}]'"
        ) from None
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - each service has errors of its own
        raise failed(uri, error) from None
    raise ConfigError(f"key {uri} is of kind {public.scheme}", f"make one of: {', '.join(SCHEMES)}")


def failed(uri: str, error: Exception) -> ConfigError:
    """The error of a service that did not answer or refused."""
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    found = ConfigError(f"key {uri} can't be used: {said}", "check its name, the service's address, and your rights")
    found.repeat = True
    return found


def _imported(scheme: str, uri: str) -> tuple[str, Any]:
    """The URI by which a key signs, and its public key."""
    from securesystemslib.signer import (  # type: ignore[attr-defined]
        AWSSigner,
        AzureSigner,
        GCPSigner,
        VaultSigner,
    )

    name = uri.partition(":")[2]
    found: tuple[str, Any]
    if scheme == "awskms":
        return AWSSigner.import_(name, SCHEMES[1])
    if scheme == "gcpkms":
        return GCPSigner.import_(name)
    if scheme == "azurekms":
        parsed = urlparse(uri)
        parts = parsed.path.split("/")
        if parts[1:2] != ["keys"] or len(parts) < 3:
            raise ConfigError(f"key {uri} is not azurekms://VAULT.vault.azure.net/keys/NAME/VERSION", "correct it")
        found = AzureSigner.import_(parsed.netloc.partition(".")[0], parts[2])
    else:
        found = VaultSigner.import_(name.partition("/")[0])
    # Both give the newest version of the key: signing with another than was asked for would surprise.
    if scheme == "azurekms" or "/" in name:
        _require_same(uri, found[0])
    return found


def _require_same(asked: str, newest: str) -> None:
    if asked != newest:
        raise ConfigError(f"key {asked} is not the newest version of it, {newest}", "name the newest version")
