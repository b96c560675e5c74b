"""Where a KFP component enters a step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ifas.core.config import RayConfig, RunConfig
from ifas.core.environment import prepare
from ifas.core.files import read_json
from ifas.core.records import METRICS_FILE, REPORT_FILE, Lineage, StepResult
from ifas.core.storage import is_remote
from ifas.steps.attempts import counted
from ifas.steps.folder import write_report
from ifas.steps.launched import run_as_job
from ifas.steps.staged import execute_staged
from ifas.steps.usage import KFP_RUN_ID


class Artifact(Protocol):
    """What a component needs of a KFP artifact."""

    uri: str
    path: str


def run_component(
    name: str, config: str, run_id: str, *, inputs: Mapping[str, Artifact | str], outputs: Mapping[str, Artifact]
) -> StepResult:
    """Runs step `name` with a JSON configuration: here, or as the RayJob that `cluster` in the configuration asks for.

    A RayJob writes to the outputs' URIs, so it needs them in an object store: kfp.local, whose artifacts are files,
    runs the step here.

    Args:
        run_id: empty: KFP's own id of the run.
        inputs: artifacts, which KFP has fetched, or URIs.

    Raises:
        IfasError: what the step raises, in a RayJob as well.
    """
    prepare()
    settings = RunConfig.model_validate_json(config)
    run = run_id or os.environ[KFP_RUN_ID]
    ray: RayConfig | None = getattr(settings.cluster, name, None) if name in ("caption", "train") else None
    with counted(name, settings.cluster, run):
        if ray is not None and ray.ray == "job" and all(is_remote(one.uri) for one in outputs.values()):
            return run_as_job(
                name,
                settings,
                run_id=run,
                inputs={n: _uri(one) for n, one in inputs.items()},
                outputs={n: _uri(one) for n, one in outputs.items()},
                here={n: Path(one.path) for n, one in outputs.items()},
            )
        return execute_staged(
            name,
            settings,
            run_id=run,
            inputs={n: _uri(one) if isinstance(one, str) else one.path for n, one in inputs.items()},
            outputs={n: one.path for n, one in outputs.items()},
            places={n: _uri(one) for n, one in inputs.items() if not isinstance(one, str)},
            kept={n: _uri(one) for n, one in outputs.items()},
        )


def _uri(one: Artifact | str) -> str:
    # minio:// is KFP's name for the S3 server that comes with it.
    return (one if isinstance(one, str) else one.uri).replace("minio://", "s3://", 1)


def present(evaluation: str, lineage: str, metrics: Any, report: str) -> None:
    """Shows an evaluation in KFP's user interface: headline metrics, and the report page with the run's costs."""
    found = read_json(Path(evaluation) / METRICS_FILE)
    for name in ("source_test", "target"):
        for metric in ("auc", "hter", "apcer_max", "bpcer"):
            value = found["slices"].get(name, {}).get(metric)
            value = value.get("value") if isinstance(value, dict) else value
            if value is not None:
                metrics.log_metric(f"{name}_{metric}", float(value))
    write_report(Path(evaluation) / REPORT_FILE, Lineage.model_validate(read_json(Path(lineage))), Path(report))
