"""Keys in a key management service. A stand-in speaks Vault's transit API, with real Ed25519: no Vault is run."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from securesystemslib.signer import AWSSigner, SSlibKey

from ifas.core.errors import ConfigError, GateError
from ifas.promotion import statements
from ifas.promotion.ledger import Ledger
from ifas.promotion.people import People
from ifas.promotion.products import Products
from ifas.promotion.statements import PACKAGE, public_pem, raw, signed, signer, verified
from tests.unit.promotion.reviewers import Keys
from tests.unit.promotion.test_approval import POLICY, submit

TOKEN = "s.token-of-a-reviewer"


class Transit(ThreadingHTTPServer):
    """The part of Vault's transit API that signing needs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.keys: dict[str, list[Ed25519PrivateKey]] = {}
        self.kind = "ed25519"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Transit

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answered("keys", lambda keys, _: {"keys": {str(n): _shown(key) for n, key in enumerate(keys, 1)}})

    def do_POST(self) -> None:
        self._answered("sign", self._signature)

    do_PUT = do_POST

    def _signature(self, keys: list[Ed25519PrivateKey], asked: dict[str, Any]) -> dict[str, str]:
        version = int(asked.get("key_version") or len(keys))
        made = keys[version - 1].sign(base64.b64decode(asked["input"]))
        return {"signature": f"vault:v{version}:{base64.b64encode(made).decode()}"}

    def _answered(self, verb: str, answer: Any) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        _, _, _, asked, name = [*self.path.split("/"), ""][:5]
        if self.headers.get("X-Vault-Token") != TOKEN:
            status, said = 403, {"errors": ["permission denied"]}
        elif asked != verb or name not in self.server.keys:
            status, said = 404, {"errors": []}
        else:
            status, said = 200, {"data": answer(self.server.keys[name], json.loads(body or b"{}"))}
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _shown(key: Ed25519PrivateKey) -> dict[str, str]:
    return {"public_key": base64.b64encode(key.public_key().public_bytes_raw()).decode()}


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Transit]:
    with Transit() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        server.keys = {name: [Ed25519PrivateKey.generate()] for name in ("ann", "gate")}
        monkeypatch.setenv("VAULT_ADDR", server.url)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        yield server
        server.shutdown()


def pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def test_what_a_key_in_a_vault_signed_is_checked_without_the_vault(
    vault: Transit, monkeypatch: pytest.MonkeyPatch
) -> None:
    envelope = signed({"a": "0" * 64}, PACKAGE, {"x": 1}, "hv:ann")
    assert public_pem("hv:ann") == public_pem("hv:ann/1") == pem(vault.keys["ann"][0])
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:1")
    assert verified(envelope, PACKAGE, [pem(vault.keys["ann"][0])], "it")["predicate"] == {"x": 1}
    with pytest.raises(GateError, match="not signed by the key"):
        verified(envelope, PACKAGE, [pem(vault.keys["gate"][0])], "it")


def test_a_reviewer_and_a_gate_whose_keys_are_in_a_vault(vault: Transit, url: str) -> None:
    people = People(reviewers={"ann": [pem(vault.keys["ann"][0])]})
    gates = {"cluster": [pem(vault.keys["gate"][0])]}
    Products(url).register("door", POLICY, by_policy=False, actor="a", reason="r", people=people, gates=gates)
    ledger = Ledger(url, gate_key="hv:gate")
    one = submit(ledger, "one", 0.9)
    with pytest.raises(GateError, match="hv:gate is of no reviewer"):
        ledger.approve(one.id, actor="", reason="good", key="hv:gate")
    assert ledger.approve(one.id, actor="", reason="good", key="hv:ann").state == "approved"
    ledger.verify()


def test_a_key_of_a_vault_has_versions(vault: Transit) -> None:
    vault.keys["ann"].append(Ed25519PrivateKey.generate())
    assert public_pem("hv:ann") == pem(vault.keys["ann"][1])
    with pytest.raises(ConfigError, match="hv:ann/1 is not the newest version of it, hv:ann/2"):
        signer("hv:ann/1")


def test_a_vault_that_refuses_is_said_and_its_token_is_not(vault: Transit, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"hv:nobody can't be used: InvalidPath"):
        signer("hv:nobody")
    monkeypatch.setenv("VAULT_TOKEN", "s.stolen")
    with pytest.raises(ConfigError, match="permission denied") as caught:
        signer("hv:ann")
    assert "s.stolen" not in str(caught.value)
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="hv:ann can't be used") as caught:
        signer("hv:ann")
    assert caught.value.repeat


def test_a_vault_that_goes_away_before_it_signs(vault: Transit, monkeypatch: pytest.MonkeyPatch) -> None:
    made = signer("hv:ann")
    vault.keys.pop("ann")
    monkeypatch.setattr(statements, "signer", lambda _: made)
    with pytest.raises(ConfigError, match="hv:ann can't be used"):
        signed({}, PACKAGE, {}, "hv:ann")


@pytest.mark.parametrize(
    ("uri", "extra"),
    [
        ("awskms:alias/ifas", "awskms"),
        ("gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1", "gcpkms"),
        ("azurekms://v.vault.azure.net/keys/k/1", "azurekms"),
    ],
)
def test_a_library_that_is_missing_is_named(uri: str, extra: str) -> None:
    with pytest.raises(ConfigError, match="can't be used") as caught:
        signer(uri)
    assert f"securesystemslib[{extra}]" in caught.value.fix


def test_hvac_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["securesystemslib.signer._vault_signer"]
    monkeypatch.setattr(module, "VAULT_IMPORT_ERROR", "Signing with HashiCorp Vault requires hvac and cryptography.")
    with pytest.raises(ConfigError, match="requires hvac") as caught:
        signer("hv:ann")
    assert "securesystemslib[vault]" in caught.value.fix


def test_a_uri_that_names_no_key() -> None:
    with pytest.raises(ConfigError, match="is not azurekms://"):
        signer("azurekms://v.vault.azure.net/secrets/k")


def test_a_key_of_a_kind_that_nothing_verifies_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Google's would be that was made with P-384: the service answers, and signs nothing."""
    key = SSlibKey.from_crypto(generate_private_key(SECP384R1()).public_key())
    monkeypatch.setattr(AWSSigner, "import_", classmethod(lambda *_: ("awskms:k", key)))
    with pytest.raises(ConfigError, match="is of kind ecdsa-sha2-nistp384"):
        signer("awskms:k")


def test_p_256_signs_too(tmp_path: Path, keys: Keys) -> None:
    """What the clouds' services have; Ed25519 is none of theirs in securesystemslib."""
    key = generate_private_key(SECP256R1())
    file = tmp_path / "p256.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    envelope = signed({"a": "0" * 64}, PACKAGE, {"x": 1}, str(file))
    assert public_pem(str(file)) == pem(key)
    assert raw(pem(key)) != raw(keys.public("ann"))
    verified(envelope, PACKAGE, [keys.public("ann"), pem(key)], "it")
    with pytest.raises(GateError):
        verified(envelope, PACKAGE, [pem(generate_private_key(SECP256R1()))], "it")
    file.write_bytes(generate_private_key(SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ConfigError, match="no ECDSA P-256 key"):
        signer(str(file))
