"""The release DAG: a candidate that was approved after its run, and that run's artifacts in, a Bento out."""

from typing import Any

from ifas_components.approve.component import approve
from ifas_components.notify.component import notify
from ifas_components.package.component import package
from ifas_pipelines.cluster import announces, judges, place, place_last, pod_of, signs
from kfp import dsl

from ifas.core.config import ClusterConfig


def release(cluster: ClusterConfig) -> Any:
    """The pipeline, for a cluster. Whoever names the artifacts decides nothing by it.

    The ledger says whether the candidate is approved; `package` refuses a model with another hash than the approved.
    """

    @dsl.pipeline(
        name="release",
        description="Package a candidate that was approved.",
        pipeline_config=dsl.PipelineConfig(
            ttl_seconds_after_finished=7 * 24 * 3600, active_deadline_seconds=cluster.deadline_s
        ),
    )
    def dag(candidate: str, model: str, evaluation: str, lineage: str, config: str, run_id: str = "") -> None:
        """approve -> (if approved) package; then notify.

        Args:
            candidate, model, evaluation, lineage: URIs of the artifacts of the run that made the candidate.
            config: the run's configuration as JSON.
            run_id: name of the run; empty: KFP's own id of it.
        """
        ended = notify(config=config, run_id=run_id)
        place_last(ended, cluster)
        with dsl.ExitHandler(ended, name="run"):
            decided = approve(config=config, run_id=run_id, candidate=_at(candidate), previous=_at(lineage))
            place(decided, pod_of("approve", cluster), cluster)
            announces(decided)
            judges(decided)
            with dsl.If(decided.outputs["Output"] == "approved", name="approved"):
                packaged = package(
                    config=config,
                    run_id=run_id,
                    model=_at(model, dsl.Model),
                    evaluation=_at(evaluation),
                    approval=decided.outputs["approval"],
                    previous=decided.outputs["lineage"],
                )
                place(packaged, pod_of("package", cluster), cluster)
                signs(packaged)

    return dag


def _at(uri: Any, kind: Any = dsl.Artifact) -> Any:
    return dsl.importer(artifact_uri=uri, artifact_class=kind, reimport=False).output
