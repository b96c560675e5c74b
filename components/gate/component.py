"""KFP component: gate."""

from ifas_components import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate(
    config: str,
    run_id: str,
    dataset: dsl.Input[dsl.Dataset],
    captions: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    previous: dsl.Input[dsl.Artifact],
    candidate: dsl.Output[dsl.Artifact],
    lineage: dsl.Output[dsl.Artifact],
) -> None:
    """Decides by policy against limits and the champion; records the candidate.

    Args:
        config: the run's configuration as JSON.
        run_id: name of the run; empty: KFP's own.
    """
    from ifas.steps.entry import run_component

    run_component(
        "gate",
        config,
        run_id,
        inputs={
            "dataset": dataset,
            "captions": captions,
            "model": model,
            "evaluation": evaluation,
            "lineage": previous,
        },
        outputs={"candidate": candidate, "lineage": lineage},
    )
