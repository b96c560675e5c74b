"""The compiled DAG on this machine, by kfp.local: every step is a process of its own, as a pod would be."""

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from ifas_pipelines.remote import compile_to
from kfp import components, local


def run_local(config_json: str, run_id: str, root: Path, log: Path) -> None:
    """Runs the `retrain` pipeline below `root`; what kfp and the steps print goes to `log`.

    Raises:
        RuntimeError: a task failed. Its own error is the last `failed` event of the run.
    """
    # The subprocesses must find the interpreter's scripts and this run's settings wherever they are started.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with output_to(log), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        local.init(
            runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root.absolute()), raise_on_error=True
        )
        pipeline = components.load_component_from_text(_without_retries(root.parent / "retrain.yaml"))
        pipeline(config=json.dumps(json.loads(config_json)), run_id=run_id)


def _without_retries(ir: Path) -> str:
    """The compiled pipeline without retries, which are for a cluster's failures: here a user's error would repeat."""
    compile_to(ir)
    spec = next(yaml.safe_load_all(ir.read_text()))
    dags = [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]
    for task in (task for dag in dags for task in dag["tasks"].values()):
        task.pop("retryPolicy", None)
    return yaml.safe_dump(spec)


@contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Sends file descriptors 1 and 2, child processes included, to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for fd, old in enumerate(kept, start=1):
                os.dup2(old, fd)
                os.close(old)
