"""The compiled pipelines, as golden files: a change of the DAG or of what it asks of the cluster shows in review.

Regenerate with: IFAS_REGENERATE=1 python -m pytest tests/pipeline
"""

import os
from pathlib import Path

import pytest
import yaml
from ifas_pipelines.cluster import pod_of
from ifas_pipelines.remote import compile_to

from ifas.core.config import load
from ifas.core.errors import DataError
from ifas.steps.contract import STEPS

COMPONENTS = Path(__file__).parents[2] / "components"
IMAGE = f"cluster.image=registry.example.org/ifas@sha256:{'1' * 64}"
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    out = tmp_path_factory.mktemp("ir") / "retrain.yaml"
    compile_to(out, load("large", [IMAGE]))
    return out


@pytest.fixture(scope="module")
def documents(compiled):
    return list(yaml.safe_load_all(compiled.read_text()))


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    out = tmp_path_factory.mktemp("ir") / "release.yaml"
    compile_to(out, load("large", [IMAGE]), "release")
    return out


@pytest.mark.parametrize("pipeline", ["compiled", "released"])
def test_golden(pipeline, request):
    made = request.getfixturevalue(pipeline)
    golden = GOLDEN / made.name
    if os.environ.get("IFAS_REGENERATE"):
        golden.write_text(made.read_text())
    assert made.read_text() == golden.read_text(), "IFAS_REGENERATE=1 makes it anew; read the difference"


def test_a_file_of_the_user_s_is_not_overwritten(tmp_path):
    (tmp_path / "mine.yaml").write_text("years of work")
    with pytest.raises(DataError, match=r"not made by ifas.*mine\.yaml"):
        compile_to(tmp_path / "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text() == "years of work"


def executors(documents):
    """Task -> what it asks of Kubernetes."""
    found = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): spec for name, spec in found.items()}


def containers(documents):
    found = documents[0]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): spec["container"] for name, spec in found.items()}


def ir(config, tmp_path):
    compile_to(tmp_path / "retrain.yaml", config)
    return list(yaml.safe_load_all((tmp_path / "retrain.yaml").read_text()))


def test_platform_settings(documents):
    found = executors(documents)
    assert set(found) == {*STEPS, "notify"}
    for spec in found.values():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert int(spec["securityContext"]["runAsUser"]) == 10001
        assert int(spec["activeDeadlineSeconds"]) > 0
        assert spec["podMetadata"]["annotations"] == {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
        assert spec["secretAsEnv"][0]["secretName"] == "ifas-credentials"
        assert spec["fieldPathAsEnv"] == [{"name": "KFP_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}]
    on_gpu = {name for name, spec in found.items() if "nodeSelector" in spec}
    assert on_gpu == {name for name, spec in found.items() if "tolerations" in spec} == {"validate", "evaluate"}
    optional = [one["optional"] for one in found["notify"]["secretAsEnv"] if "IFAS_WEBHOOK" in str(one)]
    assert optional == [True]


def test_sizes_are_those_of_the_configuration(documents, tmp_path):
    """`evaluate` of `large` holds a 7B model in float32."""
    resources = containers(documents)["evaluate"]["resources"]
    assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"] == "98304Mi"
    assert resources["accelerator"]["resourceCount"] == "1"
    assert int(executors(documents)["evaluate"]["activeDeadlineSeconds"]) == 43200
    more = ir(load("large", ["cluster.steps.evaluate.memory_gib=200"]), tmp_path)
    assert containers(more)["evaluate"]["resources"]["resourceMemoryLimit"] == "204800Mi"


def test_captioning_and_training_as_rayjobs_have_small_pods(documents, tmp_path):
    """The GPUs are the RayJob's. A step that trains in its pod gets what `cluster.steps` says."""
    for step in ("caption", "train"):
        resources = containers(documents)[step]["resources"]
        assert resources["resourceCpuLimit"] == "0.25"
        assert resources["resourceMemoryLimit"] == "512Mi"
        assert "accelerator" not in resources
    job = load("large").cluster.train
    assert int(executors(documents)["train"]["activeDeadlineSeconds"]) > 2 * job.active_deadline_s
    queued = load("tiny", ["cluster.train={ray: job, queue: q, min_workers: 2, max_workers: 2}"]).cluster
    assert pod_of("train", queued).timeout_s == queued.deadline_s > pod_of("train", load("tiny").cluster).timeout_s
    own = ir(load("large", ["cluster.train.ray=own"]), tmp_path)
    assert containers(own)["train"]["resources"]["accelerator"]["resourceCount"] == "8"
    assert executors(own)["train"]["emptyDirMounts"][0]["sizeLimit"] == "65536Mi"


def test_the_dataset_is_not_copied_into_a_pod_that_only_launches(documents):
    """An input artifact is fetched by KFP before the pod's command starts; a parameter is not."""
    for step in ("caption", "train"):
        inputs = documents[0]["components"][f"comp-{step}"]["inputDefinitions"]
        assert "dataset" not in inputs["artifacts"]
        assert inputs["parameters"]["dataset"]["parameterType"] == "STRING"


def test_kfp_s_own_cache_is_off(documents):
    for task in tasks(documents).values():
        assert not task.get("cachingOptions", {}).get("enableCache")


def test_deadline_and_retries(documents, tmp_path):
    cluster = load("large").cluster
    for name, task in tasks(documents).items():
        expected = 0 if name == "notify" else cluster.retries
        policy = task.get("retryPolicy", {})
        assert policy.get("maxRetryCount", 0) == expected
        # Argo counts it from the start of the first try: a shorter one leaves long steps without retries.
        assert policy.get("backoffMaxDuration", f"{cluster.deadline_s}s") == f"{cluster.deadline_s}s"
    assert f"activeDeadlineSeconds: {cluster.deadline_s}" in yaml.safe_dump(documents[1])


def test_git_credentials_go_to_ingest_only(documents, tmp_path):
    assert "IFAS_GIT_PASSWORD" not in str(documents)
    found = executors(ir(load("large", ["cluster.git_secret=registry-reader"]), tmp_path))
    assert {name for name, spec in found.items() if "registry-reader" in str(spec)} == {"ingest"}


def test_the_key_that_signs_packages_goes_to_package_only(documents, released):
    for some in (documents, list(yaml.safe_load_all(released.read_text()))):
        found = executors(some)
        assert {name for name, spec in found.items() if "IFAS_PACKAGE_KEY" in str(spec)} == {"package"}
        (given,) = [one for one in found["package"]["secretAsEnv"] if "IFAS_PACKAGE_KEY" in str(one)]
        assert (given["secretName"], given["optional"]) == ("ifas-credentials", True)


def test_a_shared_volume_is_mounted_in_every_pod(tmp_path):
    shared = load("tiny", ["cluster.storage=/shared", "cluster.storage_claim=ifas-shared"])
    for spec in executors(ir(shared, tmp_path)).values():
        assert spec["pvcMount"][0]["mountPath"] == "/shared"


def tasks(documents):
    """Every task that runs a pod, in whatever group."""
    dags = [documents[0]["root"]["dag"], *(c["dag"] for c in documents[0]["components"].values() if "dag" in c)]
    found = {name: task for dag in dags for name, task in dag["tasks"].items()}
    return {name: task for name, task in found.items() if name in {*STEPS, "notify"}}


def test_the_run_s_end_is_told_whatever_happened(documents):
    """Every step is inside the group that `notify` waits for."""
    root = documents[0]["root"]["dag"]["tasks"]
    assert root["notify"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert set(root) == {"notify", *root["notify"]["dependentTasks"]}


def test_wiring_is_that_of_the_contract(documents):
    """The component's artifacts are the step's inputs and outputs, lineage beside them."""
    for name, step in STEPS.items():
        component = documents[0]["components"][f"comp-{name}"]
        given = component["inputDefinitions"]
        inputs = {*given.get("artifacts", {}), *given["parameters"]} - {"previous", "config", "run_id"}
        outputs = set(component["outputDefinitions"]["artifacts"]) - {"lineage", "metrics", "report"}
        assert inputs == set(step.inputs)
        assert outputs == set(step.outputs)


def test_package_runs_only_when_approved(documents):
    inside = next(
        c["dag"]["tasks"] for c in documents[0]["components"].values() if "approve" in c.get("dag", {}).get("tasks", {})
    )
    condition = next(t for t in inside.values() if "triggerPolicy" in t)
    assert "'approved'" in condition["triggerPolicy"]["condition"]
    assert "package" not in inside


def test_a_release_takes_what_a_run_made_and_packages_only_what_was_approved(released):
    documents = list(yaml.safe_load_all(released.read_text()))
    inputs = documents[0]["root"]["inputDefinitions"]["parameters"]
    assert {name for name, one in inputs.items() if not one.get("isOptional")} == {
        *("candidate", "model", "evaluation", "lineage", "config")
    }
    assert set(containers_of_steps(documents)) == {"approve", "package", "notify"}
    test_package_runs_only_when_approved(documents)


def containers_of_steps(documents):
    found = documents[0]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-") for name, spec in found.items() if "container" in spec}


def test_secrets_are_references_only(documents):
    for container in containers(documents).values():
        assert [one["name"] for one in container["env"]] == ["IFAS_IMAGE"]


def test_components_are_thin():
    for step in STEPS:
        lines = (COMPONENTS / step / "component.py").read_text().splitlines()
        assert len(lines) < 60
