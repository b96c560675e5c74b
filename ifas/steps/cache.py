"""Results of steps, kept by content: a hit and a miss can both be explained."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifas.core.config import RunConfig
from ifas.core.files import read_json, remove, replacing, sha256_file, sha256_json, sha256_tree, write_json
from ifas.core.home import home
from ifas.steps.contract import Step

ENTRY = "entry.json"


def code_hash(rooms: tuple[str, ...]) -> str:
    """SHA-256 of the sources a step rests on: its rooms, and `core`."""
    package = Path(__file__).parents[1]
    files = [f for room in ("core", *rooms) for f in sorted((package / room).rglob("*")) if _is_source(f)]
    return sha256_json([(f.relative_to(package).as_posix(), sha256_file(f)) for f in files])


def _is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".pyc", ".nbi", ".nbc")


@dataclass(frozen=True, kw_only=True)
class Key:
    """Everything a step's result depends on."""

    step: str
    code: str
    config: dict[str, Any]
    inputs: dict[str, str]
    identity: dict[str, Any]

    @property
    def digest(self) -> str:
        """Short name of the key: 16 hex digits."""
        return sha256_json(self.parts())[:16]

    @property
    def config_hash(self) -> str:
        """SHA-256 of the step's part of the configuration."""
        return sha256_json(self.config)

    def parts(self) -> dict[str, Any]:
        """The key as plain JSON."""
        return {"code": self.code, "config": self.config, "inputs": self.inputs, "identity": self.identity}

    def difference(self, other: Mapping[str, Any]) -> str:
        """What changed against the parts of an earlier key, in words."""
        changed = []
        if other["code"] != self.code:
            changed.append("code")
        changed += [f"config {k}" for k in _changed(other["config"], self.config)]
        changed += [f"input {k}" for k in _changed(other["inputs"], self.inputs)]
        changed += _changed(other["identity"], self.identity)
        return ", ".join(changed) or "cached result was damaged"


def _changed(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            names += _changed(a, b, f"{prefix}{key}.")
        elif a != b:
            names.append(f"{prefix}{key}")
    return names


def key_of(step: Step, config: RunConfig, inputs: Mapping[str, Path]) -> Key:
    """The key of a step with these inputs. Hashes the inputs' content."""
    tree = config.model_dump(mode="json")
    return Key(
        step=step.name,
        code=code_hash(step.rooms),
        config={name: tree[name] for name in step.sections},
        inputs={name: sha256_tree(path) for name, path in sorted(inputs.items())},
        identity=step.identity(config),
    )


def find(key: Key) -> tuple[dict[str, Any] | None, str]:
    """The cached entry of `key`, whole and unaltered, and why there is one or not."""
    entry = folder(key) / ENTRY
    if entry.is_file():
        found: dict[str, Any] = read_json(entry)
        if all(_hash_or_none(folder(key) / name) == digest for name, digest in found["outputs"].items()):
            return found, "code, config and inputs unchanged"
        remove(folder(key))
        return None, "cached result was damaged"
    earlier = sorted((home() / "cache" / key.step).glob(f"*/{ENTRY}"), key=lambda p: p.stat().st_mtime)
    if not earlier:
        return None, "no earlier result"
    return None, "changed: " + key.difference(read_json(earlier[-1])["key"])


def _hash_or_none(path: Path) -> str | None:
    return sha256_tree(path) if path.exists() else None


def put(key: Key, outputs: Mapping[str, Path], hashes: Mapping[str, str], result: Mapping[str, Any]) -> None:
    """Keeps a step's outputs under its key."""
    with replacing(folder(key)) as beside:
        beside.mkdir(parents=True)
        for name, path in outputs.items():
            link_tree(path, beside / name)
        write_json(beside / ENTRY, {"key": key.parts(), "outputs": dict(hashes), "result": dict(result)})


def take(key: Key, outputs: Mapping[str, Path]) -> None:
    """Lays the cached outputs of `key` where the caller wants them."""
    for name, path in outputs.items():
        with replacing(path) as beside:
            link_tree(folder(key) / name, beside)


def link_tree(source: Path, target: Path) -> None:
    """Copies a file or folder by hard links where the file system allows; nobody writes to outputs in place."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(str(source), str(target))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def folder(key: Key) -> Path:
    """Where the result of `key` is kept."""
    return home() / "cache" / key.step / key.digest
