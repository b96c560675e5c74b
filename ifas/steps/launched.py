"""A step as a RayJob, seen from the pod that launches it: applied, followed, and its end turned into the step's."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from ifas.core import storage
from ifas.core.config import RunConfig
from ifas.core.errors import DataError, IfasError, LaunchError
from ifas.core.files import read_json
from ifas.core.progress import emit
from ifas.core.records import Lineage, StepResult
from ifas.launch.capacity import check_places
from ifas.launch.cluster import RayJobs, connect, launching_pod
from ifas.launch.following import following
from ifas.launch.pods import image_of
from ifas.launch.rayjob import build_rayjob, describe, kept
from ifas.steps.attempts import spent
from ifas.steps.execute import LINEAGE, reuse
from ifas.steps.usage import check_budget

#: Seconds between two looks at a job and its log, which KubeRay deletes within seconds if it repeats a failed attempt.
POLL_S = 1


def run_as_job(
    name: str,
    config: RunConfig,
    *,
    run_id: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    here: Mapping[str, Path],
) -> StepResult:
    """Runs step `name` as a RayJob that reads `inputs` and writes `outputs`; deletes it on SIGTERM and Ctrl-C.

    The inputs' hashes come from the lineage, so the job refuses what was changed since. Where their result is kept
    already, no cluster is started.

    Args:
        inputs, outputs: URIs, and `lineage`.
        here: for each output a path of this machine, which a reused result is laid out at.

    Raises:
        ConfigError: the job asks for more than its cluster has, or may cost more than the budget.
        IfasError: the step's own error, with its exit code.
        LaunchError: the job could not run, or ended without telling why.
    """
    with tempfile.TemporaryDirectory(prefix=f"ifas-{name}-") as scratch:
        before = storage.fetch(inputs[LINEAGE], Path(scratch) / "before")
        lineage = Lineage.model_validate(read_json(before))
        lineage.verify()
        hashes = _hashes(lineage, [one for one in inputs if one != LINEAGE])
        config = kept(config)
        found = reuse(name, config, lineage=lineage, hashes=hashes, outputs=here)
        if found is not None:
            return found
        if name == "train":
            check_budget(config, lineage, failed=spent(config.cluster, run_id, name))
        check_places(config, name)
        spec = describe(
            name,
            config,
            run_id=run_id,
            image=image_of(config.cluster),
            inputs=inputs,
            outputs=outputs,
            input_sha256=hashes,
        )
        job = build_rayjob(spec)
        jobs = RayJobs(connect(), spec.namespace, poll_s=POLL_S, owner=launching_pod(spec.namespace))
        failure: LaunchError | None = None
        with following(jobs.api, spec.namespace, job["metadata"]["name"], name, poll_s=POLL_S) as log:
            try:
                jobs.run(job, futile=lambda: log.failure is not None and not log.failure.repeat)
            except LaunchError as error:
                failure = error
        if failure is not None:
            raise _told(name, log.failure, failure) from failure
        after = Lineage.model_validate(read_json(storage.fetch(outputs[LINEAGE], Path(scratch) / "after")))
        after.verify()
        entry = after.of(name)
        if entry is None or after.entries[:-1] != lineage.entries:
            raise DataError(
                f"{outputs[LINEAGE]} does not continue the run's lineage with {name}",
                "see that no other run writes to the same place, then start the step again",
            )
        return StepResult(summary=entry.summary, facts=entry.facts)


def _hashes(lineage: Lineage, names: list[str]) -> dict[str, str]:
    """SHA-256 of each input, as the step that made it wrote it down."""
    made = {name: sha256 for entry in lineage.entries for name, sha256 in entry.outputs.items()}
    missing = [name for name in names if name not in made]
    if missing:
        raise DataError(f"no step of this run made {', '.join(missing)}", "run the steps before this one first")
    return {name: made[name] for name in names}


def _told(name: str, own: IfasError | None, failure: LaunchError) -> IfasError:
    """The step's own error where it told one; else what the cluster says."""
    told = own or failure
    emit("failed", name, what=told.what, fix=told.fix, code=told.exit_code)
    return told
