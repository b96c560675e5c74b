"""Runs one step for any caller: in-process, kfp.local, a KFP pod or a RayJob.

Around the step's own function it does what every step needs: reuse of an unchanged result, one run at a time of the
same work, outputs that are put in place when they are complete, progress events, and the entry in the run's lineage.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from itertools import combinations, product
from pathlib import Path

from ifas.core import storage
from ifas.core.config import RunConfig
from ifas.core.errors import ConfigError, DataError, IfasError
from ifas.core.files import read_json, sha256_tree, write_json
from ifas.core.outputs import discard, overlap, producing, require_ours
from ifas.core.progress import emit
from ifas.core.records import Lineage, LineageEntry, StepResult, Usage
from ifas.core.unforeseen import named
from ifas.launch.pods import IMAGE_ENV
from ifas.steps import cache
from ifas.steps.attempts import keep_usage, spent
from ifas.steps.contract import Context, Step
from ifas.steps.contract import step as step_named
from ifas.steps.usage import check_budget, metered

LINEAGE = "lineage"
#: Added to the name of an output: where a step that fails leaves what a person should read.
FAILED = ".failed"


def execute(
    name: str,
    config: RunConfig,
    *,
    run_id: str,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    use_cache: bool = True,
    origins: Mapping[str, str] | None = None,
    uris: Mapping[str, str] | None = None,
    uri: str = "",
    upload: Callable[[], None] | None = None,
) -> StepResult:
    """Runs a step, or lays out its cached result.

    The step writes beside its outputs. Only when it has succeeded are they put in place, one after the other, the
    lineage last. When it fails, or is killed while it works, what was at their paths before is untouched. A kill
    between two of them leaves a new output without its lineage; the step run again adds it.

    If another process runs the same step with the same key, this call waits for it and takes its result.

    Args:
        inputs: path of every input the step names, and `lineage` of the step before (none for the first).
        outputs: path for every output the step names, and `lineage`. What ifas did not make there is refused.
        origins, uris: see `Context`.
        uri: what a killed step leaves is kept below it, for a try on another machine; `train.storage` goes before it.
        upload: makes the outputs safe once they are in place. Only then are the files removed that a try goes on from.

    Raises:
        IfasError: the step's own errors; ConfigError and DataError for inputs and outputs that are not as the step
            needs.
    """
    step = step_named(name)
    lineage, inputs, outputs, target = _checked(step, run_id, inputs, outputs)
    failed = _failed(outputs[step.outputs[0]])
    started, begin = datetime.now(UTC), time.monotonic()
    used = metered(name, config, spent(config.cluster, run_id, name))
    try:
        for path in (*outputs.values(), target):
            require_ours(path)
        key = cache.key_of(step, config, inputs)
        with cache.alone(key):
            # Contexts end in reverse order: the lineage is put in place after the outputs.
            with ExitStack() as places:
                beside_lineage = places.enter_context(producing(target))
                beside = {output: places.enter_context(producing(path)) for output, path in outputs.items()}
                work = cache.work(key)
                context = Context(
                    run_id=run_id,
                    work=work,
                    lineage=lineage,
                    lineage_out=target,
                    failed=failed,
                    origins=origins or {},
                    uris=uris or {},
                    uri=_beside(step, config, uri, work),
                )
                result, reused, hashes, image = _result(step, key, config, inputs, beside, context, use_cache)
                seconds, usage = time.monotonic() - begin, used()
                record = _record(key, result, hashes, reused, image, started, seconds, usage)
                write_json(beside_lineage, lineage.append(record).model_dump())
            with suppress(DataError):  # what somebody else put there stays
                discard(failed)
            if upload:
                upload()
            keep_usage(name, config.cluster, run_id, usage)
            if context.uri and (upload or not reused):
                with storage.patient():
                    storage.delete(context.uri)
            shutil.rmtree(context.work, ignore_errors=True)
    except Exception as error:
        known = named(error) or IfasError(f"{type(error).__name__}: {error}", "see the log for the traceback")
        emit("failed", name, what=known.what, fix=known.fix, code=known.exit_code, repeat=known.repeat)
        raise
    emit("done", name, summary=result.summary, seconds=seconds, reused=reused)
    return result


def reuse(
    name: str, config: RunConfig, *, lineage: Lineage, hashes: Mapping[str, str], outputs: Mapping[str, Path]
) -> StepResult | None:
    """Lays out the kept result of a step whose inputs are elsewhere; None where there is none.

    Args:
        hashes: SHA-256 of each input.
        outputs: path for every output, and `lineage`.
    """
    step, started, begin = step_named(name), datetime.now(UTC), time.monotonic()
    used = metered(name, config, spent(config.cluster, lineage.run_id, name))
    key = cache.key_with(step, config, hashes)
    entry, why = cache.find(key, config.cluster.store) if step.cached else (None, "")
    if entry is None:
        return None
    result = StepResult.model_validate(entry["result"])
    with ExitStack() as places:
        beside_lineage = places.enter_context(producing(outputs[LINEAGE]))
        cache.take(key, {one: places.enter_context(producing(outputs[one])) for one in step.outputs})
        seconds = time.monotonic() - begin
        record = _record(key, result, entry["outputs"], why, cache.image(entry), started, seconds, used())
        write_json(beside_lineage, lineage.append(record).model_dump())
    emit("done", name, summary=result.summary, seconds=seconds, reused=why)
    return result


def _record(
    key: cache.Key,
    result: StepResult,
    hashes: Mapping[str, str],
    reused: str,
    image: str,
    started: datetime,
    seconds: float,
    usage: Usage,
) -> LineageEntry:
    return LineageEntry(
        step=key.step,
        config=key.config_hash,
        code=key.code_hash,
        inputs=key.inputs,
        outputs=dict(hashes),
        summary=result.summary,
        facts=result.facts,
        image=image,
        started=started.isoformat(timespec="seconds"),
        seconds=round(seconds, 2),
        reused=reused,
        usage=usage,
    )


def _checked(
    step: Step, run_id: str, inputs: Mapping[str, Path], outputs: Mapping[str, Path]
) -> tuple[Lineage, dict[str, Path], dict[str, Path], Path]:
    for kind, wanted, given in (("input", step.inputs, inputs), ("output", step.outputs, outputs)):
        missing = [n for n in wanted if n not in given]
        unknown = [n for n in given if n not in (*wanted, LINEAGE)]
        if missing or unknown:
            said = f"lacks {', '.join(missing)}" if missing else f"has no {kind} {', '.join(unknown)}"
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
        raise ConfigError(f"step {step.name} lacks output {LINEAGE}", "name a file for it")
    beside = {f"of a failed {step.name}": _failed(outputs[step.outputs[0]])}
    for (one, first), (other, second) in combinations({**outputs, **beside}.items(), 2):
        if overlap(first, second):
            raise ConfigError(f"outputs {one} and {other} lie in one another: {first}, {second}", "separate them")
    for (one, first), (other, second) in product({**outputs, **beside}.items(), inputs.items()):
        # A lineage may be continued in place: it is read before anything is written.
        if overlap(first, second) and not one == other == LINEAGE:
            raise ConfigError(f"output {one} and input {other} lie in one another: {first}, {second}", "separate them")
    # Absolute: some tools that steps start work in folders of their own.
    ours = {n: inputs[n].absolute() for n in step.inputs}, {n: outputs[n].absolute() for n in step.outputs}
    return lineage, *ours, target.absolute()


def _beside(step: Step, config: RunConfig, uri: str, work: Path) -> str:
    """`Context.uri`: a folder of this key alone."""
    place = (config.train.storage if step.name == "train" else "") or uri
    return place and f"{storage.uri_of(place).rstrip('/')}/{work.name}"


def _failed(output: Path) -> Path:
    """Where a step that fails leaves what a person should read."""
    return output.parent / f"{output.name}{FAILED}"


def _result(
    step: Step,
    key: cache.Key,
    config: RunConfig,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    context: Context,
    use_cache: bool,
) -> tuple[StepResult, str, Mapping[str, str], str]:
    """The step's result in `outputs`, why it was reused (empty where it was not), the outputs' hashes, and the image
    that the step ran in."""
    step.permit(config)
    entry, why = cache.find(key, config.cluster.store) if step.cached and use_cache else (None, "")
    if entry is not None:
        cache.take(key, outputs)
        return StepResult.model_validate(entry["result"]), why, entry["outputs"], cache.image(entry)
    if why:
        emit("note", step.name, text=f"running ({why})", quiet=True)
    if step.name == "train":
        check_budget(config, context.lineage, failed=spent(config.cluster, context.run_id, step.name))
    context.work.mkdir(parents=True, exist_ok=True)
    emit("start", step.name, about=step.about)
    result = step.run(config, inputs, outputs, context)
    unwritten = [name for name, path in outputs.items() if not path.exists()]
    if unwritten:
        raise DataError(f"step {step.name} did not write {', '.join(unwritten)}", "report this as a bug of ifas")
    hashes = {output: sha256_tree(path) for output, path in sorted(outputs.items())}
    image = os.environ.get(IMAGE_ENV, cache.LOCAL)
    if step.cached:
        cache.put(key, outputs, hashes, result.model_dump(), config.cluster.store, image=image)
    return result, "", hashes, image
