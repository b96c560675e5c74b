"""The DAG in this process, and what a run would do. The order and the wiring are those of the KFP pipeline."""

from __future__ import annotations

from pathlib import Path

from ifas.core.config import RunConfig
from ifas.core.files import read_json
from ifas.steps import cache
from ifas.steps.contract import STEPS, Step
from ifas.steps.execute import LINEAGE, execute


def run_chain(config: RunConfig, run_id: str, root: Path, *, use_cache: bool = True) -> None:
    """Runs every step in this process; artifacts go to `<root>/<step>/<output>`. `package` only when approved."""
    made: dict[str, Path] = {}
    for step in STEPS.values():
        if step.name == "package" and read_json(made["approval"])["state"] != "approved":
            return
        outputs = {name: root / step.name / name for name in (*step.outputs, LINEAGE)}
        inputs = {name: made[name] for name in (*step.inputs, LINEAGE) if name in made}
        execute(step.name, config, run_id=run_id, inputs=inputs, outputs=outputs, use_cache=use_cache)
        made.update(outputs)


def plan(config: RunConfig) -> list[tuple[Step, bool, str]]:
    """What a run would do: per step, whether its cached result would be reused, and why.

    A step after one that runs has inputs that do not exist yet, so it is shown as running, too.
    """
    found: dict[str, Path] = {}
    rows: list[tuple[Step, bool, str]] = []
    for step in STEPS.values():
        waiting = [name for name in step.inputs if name not in found]
        if waiting:
            rows.append((step, False, f"needs {', '.join(waiting)} of this run"))
        elif not step.cached:
            rows.append((step, False, "reads the ledger, always runs"))
        else:
            key = cache.key_of(step, config, {name: found[name] for name in step.inputs})
            entry, why = cache.find(key, config.cluster.store)
            rows.append((step, entry is not None, why))
            if entry is not None:
                found.update({name: cache.folder(key) / name for name in step.outputs})
    return rows
