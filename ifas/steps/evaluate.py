"""evaluate: model + protocol -> predictions, metrics by slice, and a report anyone can read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifas.core.config import RunConfig
from ifas.core.files import replacing, sha256_tree, write_json
from ifas.core.manifest import read_manifest
from ifas.core.records import METRICS_FILE, PREDICTIONS_FILE, REPORT_FILE, ROBUSTNESS_FILE, StepResult
from ifas.steps import cues
from ifas.steps.contract import Context

IN_IDENTITY = cues.IN_IDENTITY
#: Bytes for the tower's features: an image is scored first, and explained when the threshold is known.
REMEMBERED = 512 * 2**20


def identity(_config: RunConfig) -> dict[str, Any]:
    """The words by which explanations claim cues."""
    return {"cues": cues.identity()}


def run(config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context) -> StepResult:
    """Scores development and test data, freezes the threshold, explains, measures, reports."""
    from ifas.data.shards import ShardImages
    from ifas.evaluation.predict import predict
    from ifas.evaluation.protocol import evaluate
    from ifas.evaluation.report import render_report
    from ifas.model.judge import Judge

    manifest = read_manifest(inputs["captions"], captioned=True)
    images = ShardImages(inputs["dataset"])
    judge = Judge.load(inputs["model"], remember=REMEMBERED)
    predicted = predict(judge, manifest, images, config.protocol, config.evaluate, cues.cues())
    metrics = evaluate(predicted.frame, config.protocol, config.evaluate, predicted.handled)
    with replacing(outputs["evaluation"]) as beside:
        beside.mkdir(parents=True)
        predicted.frame.to_parquet(beside / PREDICTIONS_FILE, index=False)
        predicted.handled.to_parquet(beside / ROBUSTNESS_FILE, index=False)
        write_json(beside / METRICS_FILE, metrics)
        render_report(
            metrics,
            predicted.frame,
            images,
            manifest,
            run_id=context.run_id,
            model_version=sha256_tree(inputs["model"])[:12],
            lineage_facts={entry.step: entry.facts for entry in context.lineage.entries},
            config=config.evaluate,
            out=beside / REPORT_FILE,
        )
    return StepResult(summary=metrics["summary"], facts={"metrics": metrics})
