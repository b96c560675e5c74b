"""`caption` and `train` as KFP runs them on a cluster: their pods launch RayJobs, which write to the artifacts' URIs.

A component is started by KFP's own executor with what KFP's launcher would give it. The API server is the stand-in;
what KubeRay would run really runs, on a real S3 server.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ifas.core import storage
from ifas.core.config import RunConfig, load
from ifas.core.files import read_json, sha256_tree
from ifas.core.records import Lineage
from ifas.launch.rayjob import RayJobSpec
from ifas.steps.attempts import failures
from ifas.steps.staged import execute_staged
from tests.api_server import api_server
from tests.cluster.operators import Operators

# KFP's launcher mounts what it fetches at /s3; here that is a folder of the test.
EXECUTOR = """
import importlib, json, sys
from kfp.dsl import executor
from kfp.dsl.types import artifact_types
from ifas.steps import launched
step = getattr(importlib.import_module(f"ifas_components.{sys.argv[3]}.component"), sys.argv[3])
artifact_types._S3_LOCAL_MOUNT_PREFIX = artifact_types._MINIO_LOCAL_MOUNT_PREFIX = sys.argv[2] + "/"
launched.POLL_S = 0.2
executor.Executor(json.loads(sys.argv[1]), step.python_func).execute()
"""


#: What RayJobs refer to; the store's address and key are this test's own.
KEYS = {"ConfigMap": {}, "Secret": dict.fromkeys(RayJobSpec.secret_keys, "eA==")}


@pytest.fixture
def cluster(tmp_path, s3):
    with api_server() as api:
        for kind, name in (("ConfigMap", "ifas-settings"), ("Secret", "ifas-credentials")):
            api.put(
                {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "ifas"}, "data": KEYS[kind]}
            )
        (tmp_path / "kubeconfig").write_text(json.dumps(api.kubeconfig()))
        operators = Operators(api, s3, tmp_path / "ray", hold=0)
        operators.start()
        try:
            yield api, operators
        finally:
            operators.stop()


@pytest.fixture
def on_cluster(config, s3, tmp_path) -> RunConfig:
    return load(
        "tiny",
        [
            f"ingest.registry={config.ingest.registry}",
            "ingest.dataset=toy",
            f"gate.ledger={config.gate.ledger}",
            f"cluster.storage=s3://{s3.bucket}/kept-{tmp_path.name}",
        ],
    )


@pytest.fixture
def root(s3, on_cluster, tmp_path, monkeypatch):
    """The pipeline root of a run whose `ingest` is done."""
    monkeypatch.setenv("IFAS_HOME", str(tmp_path / "ingest-home"))
    place = f"s3://{s3.bucket}/{tmp_path.name}"
    outputs = {name: f"{place}/ingest/{name}" for name in ("dataset", "lineage")}
    execute_staged("ingest", on_cluster, run_id="r", inputs={}, outputs=outputs)
    return place


#: Step -> its inputs beside the dataset, each with the task that made it, and what it makes.
TASKS = {
    "caption": ({"previous": "ingest/lineage"}, "captions"),
    "train": (
        {
            "previous": "validate/lineage",
            "captions": "caption/captions",
            "validation": "validate/validation",
        },
        "model",
    ),
}


def component(
    tmp_path: Path, root: str, config: RunConfig, run_id: str, task: str = "caption", step: str = "caption"
) -> subprocess.Popen[str]:
    """The pod of a component, with an empty disk of its own. Its URIs are written as KFP's own store writes them."""
    inputs, output = TASKS[step]
    root = root.replace("s3://", "minio://")
    artifact = {"type": {"schemaTitle": "system.Artifact"}, "metadata": {}, "name": "x"}
    pod = tmp_path / f"pod-{run_id}-{task}"
    (pod / "s3").mkdir(parents=True)
    given = {
        "inputs": {
            "parameterValues": {
                "config": config.model_dump_json(),
                "run_id": run_id,
                "dataset": f"{root}/ingest/dataset",
            },
            "artifacts": {
                name: {"artifacts": [{**artifact, "uri": f"{root}/{made}"}]} for name, made in inputs.items()
            },
        },
        "outputs": {
            "artifacts": {
                name: {"artifacts": [{**artifact, "uri": f"{root}/{task}/{name}"}]} for name in (output, "lineage")
            },
            "outputFile": str(pod / "executor_output.json"),
        },
    }
    env = {
        "IFAS_HOME": str(pod / "home"),
        "IFAS_IMAGE": "registry.example/ifas@sha256:0",
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
    }
    return subprocess.Popen(
        [sys.executable, "-c", EXECUTOR, json.dumps(given), str(pod / "s3"), step],
        env={**os.environ, **env},
        cwd=pod,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def local(tmp_path: Path, pod: str, uri: str) -> Path:
    return tmp_path / pod / "s3" / uri.removeprefix("s3://")


def fetched_lineage(tmp_path: Path, uri: str) -> Lineage:
    return Lineage.model_validate(read_json(storage.fetch(uri, tmp_path / "fetched-lineage")))


@pytest.mark.slow
def test_the_component_launches_follows_and_takes_over(cluster, on_cluster, root, tmp_path):
    _, operator = cluster
    first = component(tmp_path, root, on_cluster, "r")
    said, _ = first.communicate(timeout=300)
    assert first.returncode == 0, said
    assert operator.ran == ["ifas-caption-r"]

    # The job wrote to the artifacts' URIs; the launching pod leaves nothing for KFP to upload over them.
    lineage = fetched_lineage(tmp_path, f"{root}/caption/lineage")
    lineage.verify()
    assert [entry.step for entry in lineage.entries] == ["ingest", "caption"]
    captions = storage.fetch(f"{root}/caption/captions", tmp_path / "captions")
    assert sha256_tree(captions) == lineage.of("caption").outputs["captions"]
    assert not local(tmp_path, "pod-r-caption", f"{root}/caption/captions").exists()
    # The job's own words and events are in this pod's log.
    assert "RayJob ifas-caption-r" in said
    assert lineage.of("caption").summary in said

    # Another run with equal content, in a pod with an empty disk: no cluster is started.
    again = component(tmp_path, root, on_cluster, "r2", task="caption-2")
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert operator.ran == ["ifas-caption-r"]
    here = local(tmp_path, "pod-r2-caption-2", f"{root}/caption-2/captions")
    assert sha256_tree(here) == lineage.of("caption").outputs["captions"]
    reused = Lineage.model_validate(read_json(here.with_name("lineage")))
    reused.verify()
    assert reused.of("caption").reused
    # KFP's launcher uploads them from there, as it does for any step.


@pytest.mark.slow
def test_the_training_is_a_job_too(cluster, on_cluster, root, tmp_path):
    _, operator = cluster
    uris = {"dataset": f"{root}/ingest/dataset", "lineage": f"{root}/ingest/lineage"}
    for step, output in (("caption", "captions"), ("validate", "validation")):
        made = {output: f"{root}/{step}/{output}", "lineage": f"{root}/{step}/lineage"}
        execute_staged(step, on_cluster, run_id="r", inputs=uris, outputs=made)
        uris = {**uris, **made}
    pod = component(tmp_path, root, on_cluster, "r", task="train", step="train")
    said, _ = pod.communicate(timeout=300)
    assert pod.returncode == 0, said
    assert operator.ran == ["ifas-train-r"]
    lineage = fetched_lineage(tmp_path, f"{root}/train/lineage")
    lineage.verify()
    trained = lineage.of("train")
    assert sha256_tree(storage.fetch(f"{root}/train/model", tmp_path / "model")) == trained.outputs["model"]
    assert not local(tmp_path, "pod-r-train", f"{root}/train/model").exists()
    assert trained.summary in said
    assert trained.image == "registry.example/ifas@sha256:0"
    # What it kept beside its output, for a try on other machines, is gone with its end.
    assert storage.sizes(f"{root}/train/model.work") == {}


@pytest.mark.slow
def test_the_step_s_own_error_is_the_pod_s(cluster, on_cluster, root, tmp_path):
    """A damaged input: the job refuses it by its hash, and a retry of KFP does not start another cluster."""
    _, operator = cluster
    (tmp_path / "junk").write_text("{}")
    storage.store(tmp_path / "junk", f"{root}/ingest/dataset/dataset.json")
    for _ in range(2):
        pod = component(tmp_path, root, on_cluster, "r", task=f"caption-{len(list(tmp_path.glob('pod-*')))}")
        said, _ = pod.communicate(timeout=300)
        assert pod.returncode != 0
        assert "is not what it should be: expected SHA-256" in said
    assert operator.ran == ["ifas-caption-r"]
    (failure,) = failures(on_cluster.cluster, "r", "caption")
    assert failure.code == 3
    assert not failure.repeat


@pytest.mark.slow
def test_a_cancelled_run_deletes_its_job(cluster, on_cluster, root, tmp_path):
    api, operator = cluster
    pod = component(tmp_path, root, on_cluster, "r")
    wait_for(lambda: operator.ran and api.get("rayjobs", "ifas-caption-r"))
    pod.send_signal(signal.SIGTERM)
    said, _ = pod.communicate(timeout=60)
    assert pod.returncode != 0
    assert "deleting RayJob ifas-caption-r" in said
    assert api.get("rayjobs", "ifas-caption-r") is None
    wait_for(operator.idle)


@pytest.mark.slow
def test_what_the_cluster_can_not_hold_is_not_sent(cluster, on_cluster, root, tmp_path):
    _, operator = cluster
    caption = on_cluster.caption.model_copy(update={"actors": 9})
    pod = component(tmp_path, root, on_cluster.model_copy(update={"caption": caption}), "r")
    said, _ = pod.communicate(timeout=120)
    assert pod.returncode != 0
    assert "caption.actors=9" in said
    assert operator.ran == []


def wait_for(done, seconds=60):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)
