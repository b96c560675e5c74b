"""A run's folder `runs/<id>/`: what a person opens after a run, gathered from the steps' outputs."""

from __future__ import annotations

import os
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path

from ifas.core.errors import DataError
from ifas.core.files import link_tree, read_json, write_json
from ifas.core.outputs import producing
from ifas.core.records import LINEAGE_FILE, METRICS_FILE, PREDICTIONS_FILE, REPORT_FILE, ROBUSTNESS_FILE, Lineage
from ifas.steps.contract import STEPS
from ifas.steps.execute import FAILED, LINEAGE

LATEST = "latest"


def new_run_id() -> str:
    """Sortable and unique: UTC time and four random hex digits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def output_of(root: Path, step: str, name: str) -> Path | None:
    """Where output `name` of `step` lies below an artifact root, or None. Both runners end in <step>/<output>."""
    found = sorted(root.glob(f"**/{step}/{name}"), key=lambda p: len(p.parts))
    return found[0] if found else None


def last_lineage(root: Path) -> Lineage | None:
    """The lineage as of the last step that completed below an artifact root."""
    for step in reversed(STEPS):
        path = output_of(root, step, LINEAGE)
        if path is not None:
            return Lineage.model_validate(read_json(path))
    return None


def gather(run: Path, root: Path) -> Lineage:
    """Lays out the lineage, the files of the evaluation and the Bento in the run's folder."""
    lineage = last_lineage(root) or Lineage(run_id=run.name)
    write_json(run / LINEAGE_FILE, lineage.model_dump())
    evaluation = output_of(root, "evaluate", "evaluation")
    if evaluation is not None:
        for name in (METRICS_FILE, PREDICTIONS_FILE, ROBUSTNESS_FILE):
            shutil.copyfile(evaluation / name, run / name)
        write_report(evaluation / REPORT_FILE, lineage, run / REPORT_FILE)
    validation = output_of(root, "validate", "validation") or output_of(root, "validate", f"validation{FAILED}")
    if validation is not None:
        shutil.copyfile(validation / REPORT_FILE, run / "validation.html")
    bento = output_of(root, "package", "bento")
    if bento is not None and not (run / "bento").exists():
        with producing(run / "bento") as beside:  # so that `ifas package` may write there again
            link_tree(bento, beside)
    point_latest(run)
    return lineage


def write_report(evaluation: Path, lineage: Lineage, out: Path) -> None:
    """Writes the evaluation's page with the costs of its run."""
    from ifas.review.report import with_costs

    out.write_text(with_costs(evaluation.read_text(encoding="utf-8"), lineage), encoding="utf-8")


def check_latest(runs: Path) -> None:
    """Raises DataError where `latest` in the folder of runs is not a link that may be replaced."""
    latest = runs / LATEST
    if latest.exists() and not latest.is_symlink():
        raise DataError(f"{latest} is not a link that ifas made", "move it away, or name another folder with --runs")


def point_latest(run: Path) -> None:
    """Makes `runs/latest` name this run, in one rename."""
    check_latest(run.parent)
    beside = run.parent / f".{LATEST}.{secrets.token_hex(3)}"
    os.symlink(run.name, beside)
    os.replace(beside, run.parent / LATEST)
