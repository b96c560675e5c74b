"""Where a KFP component enters a step."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifas.core.config import RunConfig
from ifas.core.environment import prepare
from ifas.core.files import read_json
from ifas.core.records import METRICS_FILE, REPORT_FILE, StepResult
from ifas.steps.execute import execute


def run_component(
    name: str, config: str, run_id: str, *, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> StepResult:
    """Runs step `name` with a JSON configuration and artifact paths. Raises what the step raises."""
    prepare()
    return execute(
        name,
        RunConfig.model_validate_json(config),
        run_id=run_id,
        inputs={k: Path(v) for k, v in inputs.items()},
        outputs={k: Path(v) for k, v in outputs.items()},
    )


def present(evaluation: str, metrics: Any, report: str) -> None:
    """Shows an evaluation in KFP's user interface: headline metrics and the report page."""
    found = read_json(Path(evaluation) / METRICS_FILE)
    for name in ("source_test", "target"):
        for metric in ("auc", "hter", "apcer_max", "bpcer"):
            value = found["slices"].get(name, {}).get(metric)
            value = value.get("value") if isinstance(value, dict) else value
            if value is not None:
                metrics.log_metric(f"{name}_{metric}", float(value))
    shutil.copyfile(Path(evaluation) / REPORT_FILE, report)
