"""KFP component: validate."""

from ifas_components import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate(
    config: str,
    run_id: str,
    dataset: dsl.Input[dsl.Dataset],
    captions: dsl.Input[dsl.Dataset],
    previous: dsl.Input[dsl.Artifact],
    validation: dsl.Output[dsl.Artifact],
    lineage: dsl.Output[dsl.Artifact],
) -> None:
    """Checks the captioned manifest; a blocking rule that fails ends the run.

    Args:
        config: the run's configuration as JSON.
        run_id: name of the run; empty: KFP's own.
    """
    from ifas.steps.entry import run_component

    run_component(
        "validate",
        config,
        run_id,
        inputs={"dataset": dataset, "captions": captions, "lineage": previous},
        outputs={"validation": validation, "lineage": lineage},
    )
