"""A step whose inputs and outputs may lie in an object store: fetched before, stored after.

This is what a RayJob's entrypoint runs: the job's pods share nothing with the pod that launched it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from ifas.core import storage
from ifas.core.config import RunConfig
from ifas.core.records import StepResult
from ifas.steps.contract import step as step_named
from ifas.steps.execute import LINEAGE, execute


def execute_staged(
    name: str,
    config: RunConfig,
    *,
    run_id: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    use_cache: bool = True,
) -> StepResult:
    """`execute` with URIs. Outputs that are not named are kept in a temporary folder and dropped.

    Raises:
        DataError: an input is missing or the store can't be reached; nothing is stored unless the step succeeded.
    """
    step = step_named(name)
    with tempfile.TemporaryDirectory(prefix=f"ifas-{name}-") as scratch:
        here = Path(scratch)
        local_in = {n: storage.fetch(uri, here / "in" / n) for n, uri in inputs.items()}
        wanted = {**{n: str(here / "out" / n) for n in (*step.outputs, LINEAGE)}, **outputs}
        local_out = {n: here / "out" / n if storage.is_remote(uri) else Path(uri) for n, uri in wanted.items()}
        result = execute(name, config, run_id=run_id, inputs=local_in, outputs=local_out, use_cache=use_cache)
        for output, uri in wanted.items():
            if storage.is_remote(uri):
                storage.store(local_out[output], uri)
    return result
