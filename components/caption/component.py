"""KFP component: caption."""

from ifas_components import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def caption(
    config: str,
    run_id: str,
    dataset: str,
    previous: dsl.Input[dsl.Artifact],
    captions: dsl.Output[dsl.Dataset],
    lineage: dsl.Output[dsl.Artifact],
) -> None:
    """Spoof-aware captioning and filtering (I-FAS, Algorithm 1).

    Args:
        config: the run's configuration as JSON.
        run_id: name of the run; empty: KFP's own.
        dataset: URI of the dataset. As an artifact it would be copied into this pod, which may only launch a job.
    """
    from ifas.steps.entry import run_component

    run_component(
        "caption",
        config,
        run_id,
        inputs={"dataset": dataset, "lineage": previous},
        outputs={"captions": captions, "lineage": lineage},
    )
