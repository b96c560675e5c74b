"""Signed statements, checked as a stranger would: with the public key, the standards, and nothing of ifas."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ifas.core.errors import ConfigError, DataError, GateError
from ifas.core.files import sha256_file, write_json
from ifas.promotion.statements import PACKAGE, public_pem, signed, signer, verify_package


def keys(folder: Path, algorithm: str = "ed25519") -> tuple[Path, Path]:
    """Made as the documentation says."""
    folder.mkdir()
    private, public = folder / "key.pem", folder / "key.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", algorithm, "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    return keys(tmp_path / "keys")


@pytest.fixture
def package(tmp_path: Path, made: tuple[Path, Path]) -> Path:
    folder = tmp_path / "package"
    for name, text in (("bento.yaml", "x"), ("src/serving.json", "{}"), ("src/ifas/a.py", "1")):
        (folder / "bento" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "bento" / name).write_text(text)
    files = {f.relative_to(folder).as_posix(): sha256_file(f) for f in folder.rglob("*") if f.is_file()}
    write_json(folder / "attestation.json", signed(files, PACKAGE, {"approval": {"actor": "ann"}}, str(made[0])))
    return folder


def test_who_has_the_public_key_sees_what_was_signed(package: Path, made: tuple[Path, Path]) -> None:
    assert verify_package(package, made[1]) == {"approval": {"actor": "ann"}}


def test_the_envelope_is_the_standards_own(package: Path, made: tuple[Path, Path]) -> None:
    """DSSE v1 and in-toto v1, by hand."""
    envelope = json.loads((package / "attestation.json").read_text())
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
    assert kind == "application/vnd.in-toto+json"
    pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
    (signature,) = envelope["signatures"]
    load_pem_public_key(made[1].read_bytes()).verify(base64.b64decode(signature["sig"]), pae)
    statement = json.loads(payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert {"name": "bento/bento.yaml", "digest": {"sha256": sha256_file(package / "bento" / "bento.yaml")}} in (
        statement["subject"]
    )


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda bento: (bento / "src" / "serving.json").write_text('{"threshold": 0}'), "serving.json was changed"),
        (lambda bento: (bento / "bento.yaml").write_text("y"), "bento.yaml was changed"),
        (lambda bento: (bento / "src" / "ifas" / "a.py").unlink(), "a.py is missing"),
        (lambda bento: (bento / "src" / "sitecustomize.py").write_text("x"), "sitecustomize.py was added"),
        (lambda bento: (bento / "src" / "torch").symlink_to("/tmp", target_is_directory=True), "torch was added"),
        (
            lambda bento: (bento / "src" / "__pycache__").mkdir() or (bento / "src" / "__pycache__" / "a.pyc").touch(),
            "a.pyc was added",
        ),
    ],
)
def test_an_edit_is_found_from_outside(
    package: Path, made: tuple[Path, Path], edit: Callable[[Path], object], said: str
) -> None:
    edit(package / "bento")
    with pytest.raises(GateError, match=f"{said} since"):
        verify_package(package, made[1])


def test_who_signs_again_has_another_key(package: Path, made: tuple[Path, Path], tmp_path: Path) -> None:
    evil, _ = keys(tmp_path / "evil")
    (package / "bento" / "src" / "serving.json").write_text('{"threshold": 0}')
    files = {f.relative_to(package).as_posix(): sha256_file(f) for f in (package / "bento").rglob("*") if f.is_file()}
    write_json(package / "attestation.json", signed(files, PACKAGE, {"approval": {"actor": "ann"}}, str(evil)))
    with pytest.raises(GateError, match="not signed by the key"):
        verify_package(package, made[1])


def test_words_are_put_into_an_envelope(package: Path, made: tuple[Path, Path]) -> None:
    file = package / "attestation.json"
    envelope = json.loads(file.read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    statement["predicate"]["approval"]["actor"] = "bob"
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    write_json(file, envelope)
    with pytest.raises(GateError, match="not signed by the key"):
        verify_package(package, made[1])


def test_a_statement_about_something_else_is_no_package(package: Path, made: tuple[Path, Path]) -> None:
    write_json(package / "attestation.json", signed({}, "https://example.org/x", {}, str(made[0])))
    with pytest.raises(GateError, match=r"states something else: .*https://example\.org/x"):
        verify_package(package, made[1])


def test_nothing_was_signed(package: Path, made: tuple[Path, Path]) -> None:
    (package / "attestation.json").unlink()
    with pytest.raises(DataError, match="nothing was signed"):
        verify_package(package, made[1])


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"payload": 3, "payloadType": "x", "signatures": []}', "3"])
def test_no_envelope(package: Path, made: tuple[Path, Path], text: str) -> None:
    (package / "attestation.json").write_text(text)
    with pytest.raises((DataError, GateError)):
        verify_package(package, made[1])


def test_keys_by_reference(tmp_path: Path, made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNING_KEY", made[0].read_text())
    assert public_pem("env:SIGNING_KEY") == public_pem(str(made[0])) == made[1].read_text()
    with pytest.raises(ConfigError, match="env:NO_KEY: no such variable is set"):
        signer("env:NO_KEY")
    with pytest.raises(ConfigError, match="No such file"):
        signer(str(tmp_path / "none.pem"))
    monkeypatch.setenv("SIGNING_KEY", "secret words")
    with pytest.raises(ConfigError) as caught:
        signer("env:SIGNING_KEY")
    assert "secret words" not in str(caught.value)
    other, _ = keys(tmp_path / "rsa", "rsa")
    with pytest.raises(ConfigError, match="no Ed25519 key"):
        signer(str(other))
    with pytest.raises(ConfigError, match="can't be used"):
        verify_package(tmp_path, made[0])
