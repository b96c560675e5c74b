"""The DAG on a cluster: compiled to IR, and sent to a KFP endpoint."""

import os
import tempfile
from pathlib import Path

from ifas_pipelines.retrain.pipeline import retrain
from kfp import Client, compiler

from ifas.core.errors import ConfigError
from ifas.core.outputs import producing


def compile_to(out: Path) -> None:
    """Writes the IR of `retrain` (and its platform document) to a YAML file, whole or not at all.

    Raises:
        ConfigError: `out` is a folder, or not named *.yaml, as KFP requires.
        DataError: there is a file that ifas did not make, or the place can't be written.
    """
    if out.suffix not in (".yaml", ".yml") or out.is_dir():
        raise ConfigError(f"{out} can't hold a compiled pipeline", "name a .yaml file")
    with producing(out) as beside:
        compiler.Compiler().compile(retrain, str(beside))


def submit_run(endpoint: str, config_json: str, run_id: str, *, experiment: str, namespace: str | None = None) -> str:
    """Submits one run of `retrain`; returns its id.

    Raises:
        ConnectionError: the endpoint can't be reached or refuses; its message names the endpoint.
    """
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch) / "retrain.yaml"
        compile_to(package)
        try:
            client = Client(host=endpoint, existing_token=os.environ.get("KFP_TOKEN"), namespace=namespace)
            run = client.create_run_from_pipeline_package(
                str(package),
                arguments={"config": config_json, "run_id": run_id},
                run_name=run_id,
                experiment_name=experiment,
                namespace=namespace,
            )
        except Exception as error:  # kfp wraps neither urllib3's errors nor its own in one base class
            raise ConnectionError(f"KFP at {endpoint} did not take the run: {type(error).__name__}: {error}") from error
    return str(run.run_id)
