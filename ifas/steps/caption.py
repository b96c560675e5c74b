"""caption: dataset -> captioned manifest and the tuned captioner (paper, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifas.core.config import RunConfig
from ifas.core.manifest import read_manifest
from ifas.core.records import StepResult
from ifas.steps.contract import Context


def identity(config: RunConfig, _inputs: Mapping[str, str]) -> dict[str, Any]:
    """The weights of the captioning model."""
    from ifas.model.sources import weights_of

    return {"weights of caption.model": weights_of(config.caption.model)}


def run(config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context) -> StepResult:
    """Captions every image; raises DataError when no caption of an attack survives the filter."""
    from ifas.captioning.scf import run_scf
    from ifas.data.shards import ShardImages
    from ifas.faces.finder import Finder

    dataset = inputs["dataset"]
    report = run_scf(
        read_manifest(dataset),
        ShardImages(dataset, context.origin("dataset")),
        config.caption,
        source_domains=config.caption.source_domains or config.protocol.source_domains,
        out=outputs["captions"],
        finder=Finder(config.model.faces),
        work=context.work,
        uri=context.uri and f"{context.uri}/captions",
    )
    return StepResult(summary=report.summary, facts=report.facts)
