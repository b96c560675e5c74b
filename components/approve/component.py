"""KFP component: approve."""

from ifas_components import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def approve(
    config: str,
    run_id: str,
    candidate: dsl.Input[dsl.Artifact],
    previous: dsl.Input[dsl.Artifact],
    approval: dsl.Output[dsl.Artifact],
    lineage: dsl.Output[dsl.Artifact],
) -> str:
    """Reports the candidate's approval state; approves only where the configuration lets the policy do so.

    Args:
        config: the run's configuration as JSON.
        run_id: name of the run; empty: KFP's own.
    """
    from ifas.steps.entry import run_component

    result = run_component(
        "approve",
        config,
        run_id,
        inputs={"candidate": candidate, "lineage": previous},
        outputs={"approval": approval, "lineage": lineage},
    )
    return str(result.facts["approval"]["state"])
