"""KFP component: notify."""

from ifas_components import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def notify(config: str, run_id: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """Tells how a run ended: in its log, and at the webhook of the configuration.

    Args:
        config: the run's configuration as JSON.
        run_id: name of the run; empty: KFP's own.
        status: of the run's steps together.
    """
    from ifas.steps.ending import tell

    tell(config, run_id, state=status.state, message=status.error_message or "")
