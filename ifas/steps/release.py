"""Packaging after a person's approval: the last step of the DAG, for a candidate of an earlier run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ifas.core.config import RunConfig
from ifas.core.errors import DataError
from ifas.core.files import write_json
from ifas.core.outputs import require_ours
from ifas.core.records import StepResult
from ifas.steps.execute import LINEAGE, execute
from ifas.steps.folder import output_of
from ifas.steps.gate import open_ledger


def package_candidate(config: RunConfig, candidate: str, out: Path, run: Path | None = None) -> StepResult:
    """Builds the Bento of a candidate from the artifacts that its run left.

    Args:
        run: folder of a later run that gave the same candidate, if the first run's folder is gone.

    Raises:
        NotApproved: its state is not `approved`.
        DataError: the run's artifacts are gone, or `out` holds something that ifas did not make.
    """
    from ifas.promotion.approval import require_approved

    require_ours(out)
    ledger = open_ledger(config)
    approved = require_approved(ledger, candidate, {})  # soon, and again with the artifacts by the step
    found = ledger.get(approved.candidate)
    artifacts = {name: Path(path) for name, path in found.facts["artifacts"].items()}
    if run is not None:
        made = {"model": "train", "evaluation": "evaluate", LINEAGE: "gate"}
        artifacts = {name: output_of(run, step, name) or run / step / name for name, step in made.items()}
    for name, path in artifacts.items():
        if not path.exists():
            raise DataError(
                f"{name} of candidate {found.id} is no longer at {path}",
                "repeat the run (unchanged steps come from the cache) and name its folder with --run",
            )
    with tempfile.TemporaryDirectory(prefix="ifas-package-") as scratch:
        approval = Path(scratch) / "approval.json"
        write_json(approval, approved.model_dump())
        return execute(
            "package",
            config,
            run_id=found.run_id,
            inputs={**artifacts, "approval": approval},
            outputs={"bento": out, LINEAGE: out.with_name(f"{out.name}.lineage.json")},
        )
