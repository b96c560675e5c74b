"""KFP component: train."""

from ifas_components import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    config: str,
    run_id: str,
    dataset: str,
    captions: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Artifact],
    previous: dsl.Input[dsl.Artifact],
    model: dsl.Output[dsl.Model],
    lineage: dsl.Output[dsl.Artifact],
) -> None:
    """Fine-tunes the model with the lopsided loss (Ray Train, DeepSpeed).

    Args:
        config: the run's configuration as JSON.
        run_id: name of the run; empty: KFP's own.
        dataset: URI of the dataset. As an artifact it would be copied into this pod, which may only launch a job.
    """
    from ifas.steps.entry import run_component

    run_component(
        "train",
        config,
        run_id,
        inputs={
            "dataset": dataset,
            "captions": captions,
            "validation": validation,
            "lineage": previous,
        },
        outputs={"model": model, "lineage": lineage},
    )
