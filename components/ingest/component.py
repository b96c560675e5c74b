"""KFP component: ingest."""

from ifas_components import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(
    config: str,
    run_id: str,
    dataset: dsl.Output[dsl.Dataset],
    lineage: dsl.Output[dsl.Artifact],
) -> str:
    """Fetches a dataset revision from the DVC registry and checks every hash. Returns the dataset's URI.

    Args:
        config: the run's configuration as JSON.
        run_id: name of the run; empty: KFP's own.
    """
    from ifas.steps.entry import run_component

    run_component(
        "ingest",
        config,
        run_id,
        inputs={},
        outputs={"dataset": dataset, "lineage": lineage},
    )
    return dataset.uri
