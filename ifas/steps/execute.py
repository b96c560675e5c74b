"""Runs one step for any caller: in-process, kfp.local, a KFP pod or a RayJob.

Around the step's own function it does what every step needs: reuse of an unchanged result, outputs that appear
whole or not at all, progress events, and the entry in the run's lineage.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from ifas.core.config import RunConfig
from ifas.core.errors import ConfigError, DataError, IfasError
from ifas.core.files import read_json, remove, sha256_tree, write_json
from ifas.core.home import home
from ifas.core.progress import emit
from ifas.core.records import Lineage, LineageEntry, StepResult
from ifas.steps import cache
from ifas.steps.contract import Context, Step
from ifas.steps.contract import step as step_named

LINEAGE = "lineage"


def execute(
    name: str,
    config: RunConfig,
    *,
    run_id: str,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    use_cache: bool = True,
) -> StepResult:
    """Runs a step, or lays out its cached result.

    Args:
        inputs: path of every input the step names, and `lineage` of the step before (none for the first).
        outputs: path for every output the step names, and `lineage`. Written whole or not at all.

    Raises:
        IfasError: the step's own errors; ConfigError and DataError for inputs that are not as the step needs.
    """
    step = step_named(name)
    lineage, inputs, outputs, target = _checked(step, run_id, inputs, outputs)
    started, begin = datetime.now(UTC), time.monotonic()
    try:
        key = cache.key_of(step, config, inputs)
        entry, why = cache.find(key) if step.cached and use_cache else (None, "")
        if entry is not None:
            cache.take(key, outputs)
            result, reused = StepResult.model_validate(entry["result"]), why
            hashes = entry["outputs"]
        else:
            if why:
                emit("note", name, text=f"running ({why})", quiet=True)
            context = Context(run_id=run_id, work=_work(key), lineage=lineage, lineage_out=target)
            result, reused = _run(step, config, inputs, outputs, context), ""
            hashes = {output: sha256_tree(path) for output, path in sorted(outputs.items())}
            if step.cached:
                cache.put(key, outputs, hashes, result.model_dump())
    except IfasError as error:
        emit("failed", name, what=error.what, fix=error.fix, code=error.exit_code)
        raise
    except Exception as error:
        emit("failed", name, what=f"{type(error).__name__}: {error}", fix="see the log for the traceback", code=1)
        raise
    seconds = time.monotonic() - begin
    record = LineageEntry(
        step=name,
        config=key.config_hash,
        code=key.code,
        inputs=key.inputs,
        outputs=dict(hashes),
        summary=result.summary,
        facts=result.facts,
        image=os.environ.get("IFAS_IMAGE", "local"),
        started=started.isoformat(timespec="seconds"),
        seconds=round(seconds, 2),
        reused=reused,
    )
    write_json(target, lineage.append(record).model_dump())
    emit("done", name, summary=result.summary, seconds=seconds, reused=reused)
    return result


def _checked(
    step: Step, run_id: str, inputs: Mapping[str, Path], outputs: Mapping[str, Path]
) -> tuple[Lineage, dict[str, Path], dict[str, Path], Path]:
    for kind, wanted, given in (("input", step.inputs, inputs), ("output", step.outputs, outputs)):
        missing = [n for n in wanted if n not in given]
        unknown = [n for n in given if n not in (*wanted, LINEAGE)]
        if missing or unknown:
            said = f"misses {', '.join(missing)}" if missing else f"has no {kind} {', '.join(unknown)}"
            raise ConfigError(f"step {step.name} {said}", f"its {kind}s are: {', '.join(wanted) or 'none'}")
    for name in step.inputs:
        if not inputs[name].exists():
            raise DataError(f"input {name} of step {step.name} is missing: {inputs[name]}", "run the step before it")
    lineage = Lineage(run_id=run_id)
    if LINEAGE in inputs:
        lineage = Lineage.model_validate(read_json(inputs[LINEAGE]))
        lineage.verify()
    target = outputs.get(LINEAGE)
    if target is None:
        raise ConfigError(f"step {step.name} misses output {LINEAGE}", "name a file for it")
    # Absolute: some tools that steps start work in folders of their own.
    ours = {n: inputs[n].absolute() for n in step.inputs}, {n: outputs[n].absolute() for n in step.outputs}
    return lineage, *ours, target.absolute()


def _work(key: cache.Key) -> Path:
    return home() / "work" / key.step / key.digest


def _run(
    step: Step, config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context
) -> StepResult:
    context.work.mkdir(parents=True, exist_ok=True)
    for path in outputs.values():
        remove(path)
    emit("start", step.name, about=step.about)
    result = step.run(config, inputs, outputs, context)
    unwritten = [name for name, path in outputs.items() if not path.exists()]
    if unwritten:
        raise DataError(f"step {step.name} did not write {', '.join(unwritten)}", "report this as a bug of ifas")
    shutil.rmtree(context.work)
    return result
