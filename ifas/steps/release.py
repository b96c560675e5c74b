"""Packaging after a person's approval: the last step of the DAG, for a candidate of an earlier run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ifas.core.config import RunConfig
from ifas.core.files import write_json
from ifas.core.outputs import require_ours
from ifas.core.records import StepResult
from ifas.steps.execute import LINEAGE, execute
from ifas.steps.folder import output_of
from ifas.steps.ledger import open_ledger
from ifas.steps.rival import artifact, gone

if TYPE_CHECKING:
    pass

#: What the package is made from, and the steps that make it.
MADE_BY = {"model": "train", "evaluation": "evaluate", LINEAGE: "gate"}


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
    if run is None:
        artifacts = {name: artifact(found, name) for name in MADE_BY}
    else:
        artifacts = {name: output_of(run, step, name) or run / step / name for name, step in MADE_BY.items()}
        for name, path in artifacts.items():
            if not path.exists():
                raise gone(found, name, str(path))
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
