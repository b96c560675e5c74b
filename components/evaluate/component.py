"""KFP component: evaluate."""

from ifas_components import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    config: str,
    run_id: str,
    dataset: dsl.Input[dsl.Dataset],
    captions: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    previous: dsl.Input[dsl.Artifact],
    evaluation: dsl.Output[dsl.Artifact],
    lineage: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Cross-domain metrics at a threshold frozen on source development data, and a report.

    Args:
        config: the run's configuration as JSON.
        run_id: name of the run; empty: KFP's own.
    """
    from ifas.steps.entry import present, run_component

    run_component(
        "evaluate",
        config,
        run_id,
        inputs={"dataset": dataset, "captions": captions, "model": model, "lineage": previous},
        outputs={"evaluation": evaluation, "lineage": lineage},
    )
    present(evaluation.path, lineage.path, metrics, report.path)
