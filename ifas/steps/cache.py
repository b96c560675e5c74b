"""Results of steps, stored under a hash of everything they depend on. A hit and a miss are both explained.

They lie below `home()`. Where a pod's disk is lost with the pod, `cluster.storage` keeps them as well, for every later
pod and run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifas.core import storage
from ifas.core.config import RunConfig
from ifas.core.errors import DataError
from ifas.core.files import link_tree, locked, read_json, replacing, sha256_json, sha256_tree, write_json
from ifas.core.home import home
from ifas.core.progress import emit
from ifas.launch.pods import IMAGE_ENV
from ifas.steps.contract import Step

ENTRY = "entry.json"
#: In place of a container image: a step that ran outside of one.
LOCAL = "local"
#: Changed sources that an explanation names.
NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Key:
    """Everything a step's result depends on.

    Attributes:
        code: source or data file of the package -> SHA-256.
        libraries: distribution -> version.
        config: section -> its values.
        inputs: name -> SHA-256 of the content.
        identity: what else decides the result, such as base weights, and the digest of the container image.
    """

    step: str
    code: dict[str, str]
    libraries: dict[str, str]
    config: dict[str, Any]
    inputs: dict[str, str]
    identity: dict[str, Any]

    @property
    def digest(self) -> str:
        """Short name of the key: 16 hex digits."""
        return sha256_json(self.parts())[:16]

    @property
    def code_hash(self) -> str:
        """SHA-256 of the sources that the step rests on."""
        return sha256_json(self.code)

    @property
    def config_hash(self) -> str:
        """SHA-256 of the step's part of the configuration."""
        return sha256_json(self.config)

    def parts(self) -> dict[str, Any]:
        """The key as plain JSON."""
        return {
            "code": self.code,
            "libraries": self.libraries,
            "config": self.config,
            "inputs": self.inputs,
            "identity": self.identity,
        }

    def difference(self, other: Mapping[str, Any]) -> str:
        """What changed against the parts of an earlier key, in words."""
        was: dict[str, dict[str, Any]] = {
            name: old if isinstance(old := other.get(name), dict) else {} for name in self.parts()
        }
        files = [f"ifas/{name}" for name in _changed(was["code"], self.code)]
        changed = [f"code {name}" for name in files[:NAMED]]
        if len(files) > NAMED:
            changed.append(f"{len(files) - NAMED} more sources")
        for name in _changed(was["libraries"], self.libraries):
            before, now = was["libraries"].get(name, "none"), self.libraries.get(name, "none")
            changed.append(f"library {name} {before} -> {now}")
        changed += [f"config {k}" for k in _changed(was["config"], self.config)]
        changed += [f"input {k}" for k in _changed(was["inputs"], self.inputs)]
        changed += _changed(was["identity"], self.identity)
        return ", ".join(changed)


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
    return key_with(step, config, {name: sha256_tree(path) for name, path in inputs.items()})


def key_with(step: Step, config: RunConfig, hashes: Mapping[str, str]) -> Key:
    """The key of a step whose inputs have these hashes."""
    tree = config.model_dump(mode="json")
    code = step.code()
    return Key(
        step=step.name,
        code=code.files,
        libraries=code.libraries,
        config={name: _part(tree, name) for name in step.sections},
        inputs=dict(sorted(hashes.items())),
        identity={**step.identity(config, hashes), **_image()},
    )


def _image() -> dict[str, str]:
    """The digest of the container image that this process runs in, if its name has one: system libraries, which decode
    images and videos, are known by it only."""
    digest = os.environ.get(IMAGE_ENV, "").partition("@")[2]
    return {"image": digest} if digest else {}


def _part(tree: Mapping[str, Any], name: str) -> Any:
    """A section of a configuration, or a part of one: `model.faces`."""
    for key in name.split("."):
        tree = tree[key]
    return tree


def alone(key: Key) -> AbstractContextManager[None]:
    """Inside the block, no other process works on `key`: it waits and then finds the result. A kill frees the lock."""

    def waiting(since: str) -> None:
        when = f" since {since}" if since else ""
        emit("note", key.step, text=f"another run works on this step{when}: waiting for it")

    return locked(work(key).with_name(f"{key.digest}.lock"), waiting)


def find(key: Key, store: str = "") -> tuple[dict[str, Any] | None, str]:
    """The cached entry of `key`, if it is complete and unchanged, and the reason why it is there or not.

    Args:
        store: URI where results are kept as well; what lies there only is fetched first.
    """
    if store and not _whole(key):
        _fetch(key, store)
    if found := _whole(key):
        return found, "code, libraries, config and inputs unchanged"
    if folder(key).exists():
        return None, "cached result was damaged"
    earlier = [place for place in (home() / "cache" / key.step).glob("*") if _read(place)]
    latest = _read(max(earlier, key=lambda place: (place / ENTRY).stat().st_mtime)) if earlier else None
    return None, f"changed: {key.difference(latest['key'])}" if latest else "no earlier result"


def _whole(key: Key) -> dict[str, Any] | None:
    found = _read(folder(key))
    good = found and all(_hash_or_none(folder(key) / name) == digest for name, digest in found["outputs"].items())
    return found if good else None


def _fetch(key: Key, store: str) -> None:
    place = _in(store, key)
    try:
        # Stored last: what has no entry is not complete.
        if storage.exists(f"{place}/{ENTRY}"):
            storage.fetch(place, folder(key))
    except DataError as error:
        emit("note", key.step, text=f"no look at earlier runs' results: {error.what}")


def _in(store: str, key: Key) -> str:
    return f"{store}/cache/{key.step}/{key.digest}"


def _read(place: Path) -> dict[str, Any] | None:
    """The entry of a kept result, or None where it is damaged."""
    try:
        found: dict[str, Any] = read_json(place / ENTRY)
    except (OSError, ValueError):
        return None
    kinds = {"key": dict, "outputs": dict, "result": dict}
    whole = isinstance(found, dict) and all(isinstance(found.get(name), kind) for name, kind in kinds.items())
    return found if whole else None


def _hash_or_none(path: Path) -> str | None:
    return sha256_tree(path) if path.exists() else None


def put(
    key: Key,
    outputs: Mapping[str, Path],
    hashes: Mapping[str, str],
    result: Mapping[str, Any],
    store: str = "",
    *,
    image: str = LOCAL,
) -> None:
    """Stores a step's outputs under its key, in `store` as well. If that fails, as on a full disk, a note says so.

    Args:
        image: that made them.
    """
    entry = {"key": key.parts(), "outputs": dict(hashes), "result": dict(result), "image": image}
    try:
        with replacing(folder(key)) as beside:
            beside.mkdir(parents=True)
            for name, path in outputs.items():
                link_tree(path, beside / name)
            write_json(beside / ENTRY, entry)
    except OSError as error:
        emit("note", key.step, text=f"the result is not kept for later runs: {error.strerror or error}")
        return
    if not store:
        return
    try:
        for name in outputs:
            storage.store(folder(key) / name, f"{_in(store, key)}/{name}")
        storage.store(folder(key) / ENTRY, f"{_in(store, key)}/{ENTRY}")
    except DataError as error:
        emit("note", key.step, text=f"the result is not kept for other pods: {error.what}")


def image(entry: Mapping[str, Any]) -> str:
    """The image that made a kept result; `LOCAL` for one of before it was recorded."""
    return str(entry.get("image", LOCAL))


def take(key: Key, outputs: Mapping[str, Path]) -> None:
    """Links or copies the cached outputs of `key` to the caller's paths, which must not exist."""
    for name, path in outputs.items():
        link_tree(folder(key) / name, path)


def folder(key: Key) -> Path:
    """Where the result of `key` is kept."""
    return home() / "cache" / key.step / key.digest


def work(key: Key) -> Path:
    """Scratch folder of `key`. The next run finds what a killed one left there."""
    return home() / "work" / key.step / key.digest
