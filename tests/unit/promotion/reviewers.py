"""Keys of people, as they make them themselves, and the products that they decide about."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ifas.promotion.people import People


class Keys:
    """A private key of each name, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def private(self, name: str) -> str:
        """The file, made when it is asked for first."""
        file = self.folder / f"{name}.pem"
        if not file.exists():
            key = Ed25519PrivateKey.generate()
            file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            file.with_suffix(".pub").write_bytes(public)
        return str(file)

    def public(self, name: str) -> str:
        """PEM."""
        return Path(self.private(name)).with_suffix(".pub").read_text()

    def people(self, *names: str, **rules: object) -> People:
        """Reviewers, each with a key."""
        return People.model_validate({"reviewers": {name: [self.public(name)] for name in names}, **rules})
