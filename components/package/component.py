"""KFP component: package."""

from ifas_components import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def package(
    config: str,
    run_id: str,
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    approval: dsl.Input[dsl.Artifact],
    previous: dsl.Input[dsl.Artifact],
    bento: dsl.Output[dsl.Artifact],
    lineage: dsl.Output[dsl.Artifact],
) -> None:
    """Builds the Bento of an approved candidate.

    Args:
        config: the run's configuration as JSON.
        run_id: name of the run; empty: KFP's own.
    """
    from ifas.steps.entry import run_component

    run_component(
        "package",
        config,
        run_id,
        inputs={
            "model": model,
            "evaluation": evaluation,
            "approval": approval,
            "lineage": previous,
        },
        outputs={"bento": bento, "lineage": lineage},
    )
