"""Approved candidate -> Bento: its model, the code that serves it, its card and its lineage in one folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ifas.core.calibration import Calibration
from ifas.core.config import TrafficConfig
from ifas.core.errors import DataError, MachineError
from ifas.core.files import read_json, replacing, sha256_file, write_json
from ifas.core.imaging import ImageLimits
from ifas.core.records import Lineage
from ifas.model.processor import PROCESSOR_FILE
from ifas.serving.card import CARD_FILE, render_card
from ifas.serving.contents import write_contents
from ifas.serving.requirements import ROOTS, TOWER_PACKAGES, pinned
from ifas.serving.settings import MODEL_DIR, SETTINGS_FILE, ServingSettings
from ifas.serving.stage import build, stage, tag_version

BENTO_DIR = "bento"
RECORD_FILE = "package.json"
#: Beside the model: code, card, records, and what the file system needs.
SPARE_BYTES = 64 * 2**20


class PackagedFile(BaseModel):
    """One file of the Bento."""

    path: str
    bytes: int
    sha256: str


class PackageRecord(BaseModel):
    """`package.json`: what was built, and from what."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    tag: str
    candidate: str
    product: str
    model_version: str
    model_sha256: str
    calibration: Calibration | None = None
    threshold: float
    approved_by: str
    approved_at: str
    requirements: list[str] = Field(description="exact versions, transitive ones included")
    files: list[PackagedFile]

    @property
    def bytes(self) -> int:
        """Size of the Bento."""
        return sum(file.bytes for file in self.files)

    @property
    def summary(self) -> str:
        """One line for a person."""
        return (
            f"Bento {self.tag}: {len(self.files)} files, {self.bytes / 2**20:.1f} MiB, "
            f"{len(self.requirements)} pinned packages, approved by {self.approved_by}"
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for the lineage."""
        kept = self.model_dump(mode="json", exclude={"files", "requirements"})
        return {**kept, "files": len(self.files), "bytes": self.bytes, "requirements": self.requirements}


def build_bento(
    model: Path,
    approval: Mapping[str, Any],
    metrics: Mapping[str, Any],
    lineage: Lineage,
    *,
    name: str,
    limits: ImageLimits,
    traffic: TrafficConfig = TrafficConfig(),  # noqa: B008 - frozen
    publish_card: bool = False,
    out: Path,
) -> PackageRecord:
    """Builds `out`/bento (servable with `bentoml serve`), `out`/MODEL_CARD.md and `out`/package.json, atomically.

    The same inputs give the same bytes.

    Args:
        model: the model directory that was evaluated.
        approval: of this model and these metrics, as the ledger has it, which the caller has asked: who, why, when, and
            the digests that the decision is bound to.
        metrics: `metrics.json` of the evaluation.
        lineage: of the run, up to the evaluation at least.
        name: of the Bento.
        limits: of the images that the service accepts.
        traffic: what the service takes in at once, and how long it waits for a client.
        publish_card: the service shows the model card to every client.
        out: folder to make.

    Raises:
        DataError: a record that the model card needs is missing.
        MachineError: no disk space.
        IfasError: BentoML could not build.
    """
    digest = str(approval["model_sha256"])
    settings = ServingSettings(
        candidate=approval["candidate"],
        model_version=digest[:12],
        model_sha256=digest,
        calibration=_calibration(metrics),
        threshold=metrics["threshold"]["value"],
        question=read_json(model / PROCESSOR_FILE)["question"],
        limits=limits,
        traffic=traffic,
        publish_card=publish_card,
    )
    card = render_card(model, settings, approval, metrics, lineage, name=name)
    tower = str(read_json(model / "config.json").get("vision_kind", ""))
    requirements = pinned((*ROOTS, *TOWER_PACKAGES.get(tower, ())))
    _check_space(model, out)
    ingest = lineage.of("ingest")
    labels = {
        "candidate": settings.candidate,
        "product": str(approval["product"]),
        "model_sha256": digest,
        "dataset_revision": str(ingest.facts["revision"]) if ingest else "",
    }
    with replacing(out) as beside, tempfile.TemporaryDirectory(prefix="ifas-bento-") as scratch:
        context = Path(scratch) / "context"
        stage(context, settings, card, lineage, name=name, requirements=requirements, labels=labels)
        built = build(context, Path(scratch), version=tag_version(settings.candidate), created=str(approval["at"]))
        shutil.copytree(built, beside / BENTO_DIR)
        _place_model(model, beside / BENTO_DIR / "src" / MODEL_DIR)
        write_contents(beside / BENTO_DIR / "src")
        (beside / CARD_FILE).write_text(card, encoding="utf-8")
        record = PackageRecord(
            tag=f"{name}:{tag_version(settings.candidate)}",
            candidate=settings.candidate,
            product=str(approval["product"]),
            model_version=settings.model_version,
            model_sha256=digest,
            calibration=settings.calibration,
            threshold=settings.threshold,
            approved_by=str(approval["actor"]),
            approved_at=str(approval["at"]),
            requirements=requirements,
            files=_files(beside / BENTO_DIR),
        )
        write_json(beside / RECORD_FILE, record.model_dump(mode="json"))
    return record


def _calibration(metrics: Mapping[str, Any]) -> Calibration | None:
    """The calibration that the threshold was frozen with; none where it was switched off, or not yet known."""
    found = metrics.get("calibration")
    try:
        return Calibration(**{name: found[name] for name in Calibration.model_fields}) if found else None
    except (KeyError, TypeError, ValidationError) as error:
        raise DataError(f"metrics.json has a damaged calibration: {error}", "run `ifas step evaluate` again") from error


def _check_space(model: Path, out: Path) -> None:
    needed = sum(f.stat().st_size for f in model.rglob("*") if f.is_file()) + SPARE_BYTES
    existing = next(parent for parent in out.absolute().parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise MachineError(
            f"packaging needs {needed / 2**20:.0f} MiB, {existing} has {free / 2**20:.0f} MiB free",
            "free disk space, then run the step again",
        )


def _place_model(model: Path, target: Path) -> None:
    """Puts the model's files at `target`: hard links to files that every user may read, copies of the others."""
    for file in sorted(p for p in model.rglob("*") if p.is_file()):
        to = target / file.relative_to(model)
        to.parent.mkdir(parents=True, exist_ok=True)
        # safetensors writes files that only their owner can read; the service runs as another user.
        if file.stat().st_mode & 0o444 == 0o444:
            try:
                os.link(file, to)
                continue
            except OSError:  # another file system
                pass
        shutil.copyfile(file, to)
        to.chmod(0o644)


def _files(folder: Path) -> list[PackagedFile]:
    return [
        PackagedFile(path=file.relative_to(folder).as_posix(), bytes=file.stat().st_size, sha256=sha256_file(file))
        for file in sorted(p for p in folder.rglob("*") if p.is_file())
    ]


__all__ = ["BENTO_DIR", "RECORD_FILE", "SETTINGS_FILE", "PackageRecord", "build_bento"]
