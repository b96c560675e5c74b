"""The retraining DAG: a dataset revision in, an approved Bento out."""

from typing import Any

from ifas_components.approve.component import approve
from ifas_components.caption.component import caption
from ifas_components.evaluate.component import evaluate
from ifas_components.gate.component import gate
from ifas_components.ingest.component import ingest
from ifas_components.notify.component import notify
from ifas_components.package.component import package
from ifas_components.train.component import train
from ifas_components.validate.component import validate
from ifas_pipelines.cluster import announces, git_credentials, judges, place, place_last, pod_of, signs
from kfp import dsl

from ifas.core.config import ClusterConfig, StepName


def retrain(cluster: ClusterConfig) -> Any:
    """The pipeline, for a cluster: what it asks for is part of the compiled file.

    Its parameters are `config`, the run's configuration as JSON (`ifas config show PROFILE --json`), and `run_id`, the
    run's name; empty: KFP's own id of the run.
    """

    @dsl.pipeline(
        name="retrain",
        description="Retrain, evaluate, gate and package the I-FAS model.",
        pipeline_config=dsl.PipelineConfig(
            ttl_seconds_after_finished=7 * 24 * 3600, active_deadline_seconds=cluster.deadline_s
        ),
    )
    def dag(config: str, run_id: str = "") -> None:
        """ingest -> caption -> validate -> train -> evaluate -> gate -> approve -> (if approved) package; then notify.

        Args:
            config: the run's configuration as JSON.
            run_id: name of the run.
        """
        ended = notify(config=config, run_id=run_id)
        place_last(ended, cluster)
        with dsl.ExitHandler(ended, name="run"):
            _steps(cluster, {"config": config, "run_id": run_id})

    return dag


def _steps(cluster: ClusterConfig, run: dict[str, Any]) -> None:
    def placed(name: StepName, task: dsl.PipelineTask) -> dsl.PipelineTask:
        place(task, pod_of(name, cluster), cluster)
        return task

    data = placed("ingest", ingest(**run))
    git_credentials(data, cluster)
    dataset, uri = data.outputs["dataset"], data.outputs["Output"]

    captioned = placed("caption", caption(**run, dataset=uri, previous=data.outputs["lineage"]))
    captions = captioned.outputs["captions"]

    validated = placed(
        "validate", validate(**run, dataset=dataset, captions=captions, previous=captioned.outputs["lineage"])
    )

    trained = placed(
        "train",
        train(
            **run,
            dataset=uri,
            captions=captions,
            validation=validated.outputs["validation"],
            previous=validated.outputs["lineage"],
        ),
    )
    model = trained.outputs["model"]

    evaluated = placed(
        "evaluate",
        evaluate(**run, dataset=dataset, captions=captions, model=model, previous=trained.outputs["lineage"]),
    )
    evaluation = evaluated.outputs["evaluation"]

    gated = placed(
        "gate",
        gate(
            **run,
            dataset=dataset,
            captions=captions,
            model=model,
            evaluation=evaluation,
            previous=evaluated.outputs["lineage"],
        ),
    )

    announces(gated)
    judges(gated)

    decided = placed("approve", approve(**run, candidate=gated.outputs["candidate"], previous=gated.outputs["lineage"]))
    announces(decided)
    judges(decided)  # where another champion came since

    with dsl.If(decided.outputs["Output"] == "approved", name="approved"):
        packaged = placed(
            "package",
            package(
                **run,
                model=model,
                evaluation=evaluation,
                approval=decided.outputs["approval"],
                previous=decided.outputs["lineage"],
            ),
        )
        signs(packaged)
