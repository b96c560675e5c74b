"""The retraining DAG: a dataset revision in, an approved Bento out."""

from ifas_components.approve.component import approve
from ifas_components.caption.component import caption
from ifas_components.evaluate.component import evaluate
from ifas_components.gate.component import gate
from ifas_components.ingest.component import ingest
from ifas_components.package.component import package
from ifas_components.train.component import train
from ifas_components.validate.component import validate
from ifas_pipelines.cluster import CAPTION, DEFAULT, TRAIN, place
from kfp import dsl


@dsl.pipeline(
    name="retrain",
    description="Retrain, evaluate, gate and package the I-FAS model.",
    pipeline_config=dsl.PipelineConfig(ttl_seconds_after_finished=7 * 24 * 3600),
)
def retrain(config: str, run_id: str) -> None:
    """ingest -> caption -> validate -> train -> evaluate -> gate -> approve -> (if approved) package.

    Args:
        config: the run's configuration as JSON (`ifas config show PROFILE --json`).
        run_id: name of the run.
    """
    data = ingest(config=config, run_id=run_id)
    place(data, DEFAULT)
    dataset = data.outputs["dataset"]

    captioned = caption(config=config, run_id=run_id, dataset=dataset, previous=data.outputs["lineage"])
    place(captioned, CAPTION)
    captions = captioned.outputs["captions"]

    validated = validate(
        config=config, run_id=run_id, dataset=dataset, captions=captions, previous=captioned.outputs["lineage"]
    )
    place(validated, DEFAULT)

    trained = train(
        config=config,
        run_id=run_id,
        dataset=dataset,
        captions=captions,
        validation=validated.outputs["validation"],
        previous=validated.outputs["lineage"],
    )
    place(trained, TRAIN)
    model = trained.outputs["model"]

    evaluated = evaluate(
        config=config,
        run_id=run_id,
        dataset=dataset,
        captions=captions,
        model=model,
        previous=trained.outputs["lineage"],
    )
    place(evaluated, DEFAULT)
    evaluation = evaluated.outputs["evaluation"]

    gated = gate(
        config=config,
        run_id=run_id,
        dataset=dataset,
        captions=captions,
        model=model,
        evaluation=evaluation,
        previous=evaluated.outputs["lineage"],
    )
    place(gated, DEFAULT)

    decided = approve(
        config=config, run_id=run_id, candidate=gated.outputs["candidate"], previous=gated.outputs["lineage"]
    )
    place(decided, DEFAULT)
    # Never from KFP's cache: the state of the ledger can change between two runs with equal inputs.
    gated.set_caching_options(False)
    decided.set_caching_options(False)

    with dsl.If(decided.outputs["Output"] == "approved", name="approved"):
        packaged = package(
            config=config,
            run_id=run_id,
            model=model,
            evaluation=evaluation,
            approval=decided.outputs["approval"],
            previous=decided.outputs["lineage"],
        )
        place(packaged, DEFAULT)
