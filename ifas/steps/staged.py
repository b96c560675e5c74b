"""A step whose inputs and outputs may lie in an object store: fetched before, stored after.

This is what a RayJob's entrypoint runs: its pods share no disk with the pod that launched it, nor with each other.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from ifas.core import storage
from ifas.core.config import RunConfig
from ifas.core.errors import ConfigError, DataError
from ifas.core.files import read_json, sha256_tree, write_json
from ifas.core.records import StepResult
from ifas.steps.contract import step as step_named
from ifas.steps.execute import LINEAGE, execute

#: Added to the URI of an output: the record of the objects that ifas stored below it, with their sizes in bytes.
RECORD = ".ifas.json"
#: Added to the URI of a step's first output: what must survive this machine while the step works.
WORK = ".work"


def execute_staged(
    name: str,
    config: RunConfig,
    *,
    run_id: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    hashes: Mapping[str, str] | None = None,
    places: Mapping[str, str] | None = None,
    kept: Mapping[str, str] | None = None,
    use_cache: bool = True,
) -> StepResult:
    """`execute` with URIs. Outputs that are not named are kept in a temporary folder and dropped.

    Args:
        hashes: input -> SHA-256 of what it must hold, for those where it is known.
        places, kept: URIs of inputs and of outputs that somebody else fetches and stores (KFP).

    Raises:
        ConfigError: a hash of no input.
        DataError: an input is missing or is not what its hash says, the store can't be reached, or a URI for an output
            holds objects that ifas did not store; nothing is stored unless the step succeeded. A store that fails in
            the middle keeps what was uploaded; the lineage is uploaded last.
    """
    step = step_named(name)
    hashes = hashes or {}
    if unknown := sorted(set(hashes) - set(inputs)):
        raise ConfigError(f"a SHA-256 is given for {', '.join(unknown)}, which is no input", "name the input as well")
    with tempfile.TemporaryDirectory(prefix=f"ifas-{name}-") as scratch:
        here = Path(scratch)
        wanted_in = {n: storage.pinned(uri, hashes[n]) if n in hashes else uri for n, uri in inputs.items()}
        local_in = {n: storage.here(uri) for n, uri in wanted_in.items()}
        origins = {n: storage.pinned(uri, local_in[n].name) for n, uri in inputs.items() if storage.is_remote(uri)}
        elsewhere = {n: uri for n, uri in (places or {}).items() if storage.is_remote(uri)}
        origins |= {n: storage.pinned(elsewhere[n], sha256_tree(local_in[n])) for n in elsewhere if n in local_in}
        wanted = {**{n: str(here / "out" / n) for n in (*step.outputs, LINEAGE)}, **outputs}
        local_out = {n: here / "out" / n if storage.is_remote(uri) else Path(uri) for n, uri in wanted.items()}
        remote = {n: uri for n, uri in wanted.items() if storage.is_remote(uri)}
        for uri in remote.values():
            _there(uri)
        first = wanted[step.outputs[0]]

        def upload() -> None:
            for output, uri in remote.items():
                _store(local_out[output], uri)

        # The store has answered by now: one that goes away comes back.
        with storage.patient() if remote else nullcontext():
            return execute(
                name,
                config,
                run_id=run_id,
                inputs=local_in,
                outputs=local_out,
                use_cache=use_cache,
                origins=origins,
                uris={**remote, **{n: uri for n, uri in (kept or {}).items() if storage.is_remote(uri)}},
                uri=f"{first.rstrip('/')}{WORK}" if storage.is_remote(first) else "",
                upload=upload if remote else None,
            )


def _there(uri: str) -> dict[str, int]:
    """Objects at an output's URI -> bytes. Raises DataError where ifas did not store one of them."""
    there = storage.sizes(uri)
    if not there:
        return {}
    with tempfile.TemporaryDirectory(prefix="ifas-record-") as scratch:
        try:
            made = read_json(storage.fetch(f"{uri.rstrip('/')}{RECORD}", Path(scratch) / "record"))
        except (DataError, json.JSONDecodeError):
            made = {}
    foreign = sorted(one or uri for one, size in there.items() if size not in made.get(one, []))
    if foreign:
        raise DataError(
            f"{uri} is not replaced: not stored by ifas, or changed since: {', '.join(foreign[:3])}"
            + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""),
            "name another place, or move these objects away",
        )
    return there


def _store(path: Path, uri: str) -> None:
    there = _there(uri)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    ours = {"" if file == path else file.relative_to(path).as_posix(): file.stat().st_size for file in files}
    with tempfile.TemporaryDirectory(prefix="ifas-record-") as scratch:
        # Before the upload, so that the objects of an interrupted one are known as stored by ifas.
        both = {one: [sizes[one] for sizes in (ours, there) if one in sizes] for one in {**there, **ours}}
        write_json(Path(scratch) / "record", both)
        storage.store(Path(scratch) / "record", f"{uri.rstrip('/')}{RECORD}")
    for gone in [one for one in there if one not in ours]:
        storage.delete(f"{uri.rstrip('/')}/{gone}" if gone else uri)
    storage.store(path, uri)
