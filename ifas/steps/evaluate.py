"""evaluate: model + protocol -> predictions, metrics by slice, and a report anyone can read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.config import LINEAR_PROBE, RunConfig
from ifas.core.errors import DataError
from ifas.core.files import replacing, sha256_tree, write_json
from ifas.core.manifest import ImageSource, read_manifest
from ifas.core.progress import emit
from ifas.core.records import METRICS_FILE, MODES_FILE, PREDICTIONS_FILE, REPORT_FILE, ROBUSTNESS_FILE, StepResult
from ifas.steps import baselines, cues
from ifas.steps.contract import Context

if TYPE_CHECKING:
    import pandas as pd

    from ifas.model.judge import Judge

#: The ledger's code decides only which model is the champion, and `identity` names that.
IN_IDENTITY = (*cues.IN_IDENTITY, "ifas.steps.rival")
#: Bytes for the tower's features: an image is scored first, and explained when the threshold is known.
REMEMBERED = 512 * 2**20


def identity(config: RunConfig, inputs: Mapping[str, str]) -> dict[str, Any]:
    """The words by which explanations claim cues, and the champion and the baselines that the model is measured
    against."""
    from ifas.steps.rival import rival_of_model

    champion = rival_of_model(config, inputs["model"]) if "model" in inputs else None
    found: dict[str, Any] = {"cues": cues.identity()} | ({"champion": champion.id} if champion else {})
    scores = baselines.hashes(config)
    return found | ({"baselines": scores} if scores else {})


def run(config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context) -> StepResult:
    """Scores development and test data, freezes the threshold, explains, measures, reports."""
    from ifas.data.shards import ShardImages
    from ifas.evaluation.predict import predict
    from ifas.evaluation.protocol import evaluate
    from ifas.model.judge import Judge
    from ifas.review.report import render_report

    manifest = read_manifest(inputs["captions"], captioned=True)
    images = ShardImages(inputs["dataset"])
    judge = Judge.load(inputs["model"], remember=REMEMBERED)
    predicted = predict(judge, manifest, images, config.protocol, config.evaluate, cues.cues())
    metrics = evaluate(predicted.frame, config.protocol, config.evaluate, predicted.handled, predicted.asked)
    model = sha256_tree(inputs["model"])
    if paired := _against_champion(config, model, predicted.frame, metrics, manifest, images):
        metrics["against_champion"] = paired
    if rivals := _baselines(config, judge, predicted.frame, metrics, manifest, images):
        metrics["baselines"] = rivals
    with replacing(outputs["evaluation"]) as beside:
        beside.mkdir(parents=True)
        predicted.frame.to_parquet(beside / PREDICTIONS_FILE, index=False)
        predicted.handled.to_parquet(beside / ROBUSTNESS_FILE, index=False)
        if config.evaluate.modes.images:
            predicted.asked.to_parquet(beside / MODES_FILE, index=False)
        write_json(beside / METRICS_FILE, metrics)
        render_report(
            metrics,
            predicted.frame,
            images,
            manifest,
            run_id=context.run_id,
            model_version=model[:12],
            lineage_facts={entry.step: entry.facts for entry in context.lineage.entries},
            config=config.evaluate,
            out=beside / REPORT_FILE,
        )
    return StepResult(summary=metrics["summary"], facts={"metrics": metrics})


def _baselines(
    config: RunConfig,
    judge: Judge,
    predicted: pd.DataFrame,
    metrics: Mapping[str, Any],
    manifest: pd.DataFrame,
    images: ImageSource,
) -> dict[str, Any]:
    """Every baseline's figures on the test images, by name."""
    from ifas.evaluation.baselines import measure
    from ifas.evaluation.probe import scores_of_probe

    protocol, settings = config.protocol, config.evaluate
    known: dict[str, dict[str, Any]] = {name: {"sha256": sha256} for name, sha256 in baselines.hashes(config).items()}
    tables = baselines.tables(config)
    if baselines.probes(config):
        scores, facts = scores_of_probe(judge, predicted, manifest, images, protocol, settings.batch)
        tables, known = {LINEAR_PROBE: scores, **tables}, {LINEAR_PROBE: facts, **known}
    elif settings.probe:
        emit("note", "evaluate", text="no linear probe: the vision tower was trained (model.vision.tune)")
    threshold = float(metrics["threshold"]["value"])
    return {
        name: known[name] | measure(predicted, scores, threshold=threshold, protocol=protocol, config=settings)
        for name, scores in tables.items()
    }


def _against_champion(
    config: RunConfig,
    model: str,
    predicted: pd.DataFrame,
    metrics: Mapping[str, Any],
    manifest: pd.DataFrame,
    images: ImageSource,
) -> dict[str, Any]:
    """The champion judged on the same test images, and every paired difference; empty where there is no champion.

    A champion's model that can't be had is told, and stops nothing: rules that need the difference then fail.
    """
    from ifas.evaluation.paired import against
    from ifas.evaluation.predict import rescore
    from ifas.model.judge import Judge
    from ifas.steps.rival import artifact, rival_of_model

    champion = rival_of_model(config, model)
    if champion is None:
        return {}
    try:
        judge = Judge.load(artifact(champion, "model"))
    except DataError as error:
        emit("note", "evaluate", text=f"not compared with champion {champion.id} on the same images: {error.what}")
        return {}
    rescored = rescore(judge, predicted, manifest, images, config.evaluate.batch)
    slices = against(
        predicted,
        rescored,
        threshold=float(metrics["threshold"]["value"]),
        champion=champion.metrics,
        protocol=config.protocol,
        config=config.evaluate,
    )
    return {"candidate": champion.id, "model": champion.model_sha256, "slices": slices}
