"""`ifas cluster check` against the stand-in: a cluster that has everything, and one fault at a time."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from ifas.cli.main import app
from ifas.core.errors import LaunchError
from ifas.launch import readiness, referenced
from tests.api_server import api_server

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def overlay():
    command = [str(Path(sys.executable).with_name("kubectl")), "kustomize", str(ROOT / "infra/overlays/local")]
    return list(yaml.safe_load_all(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout))


def labelled(kind: str, name: str, labels: dict, **more) -> dict:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": labels}, **more}


def crd(name: str, version: str = "v1", fields: tuple[str, ...] = ()) -> dict:
    spec = {"properties": {"spec": {"properties": {field: {} for field in fields}}}}
    versions = [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": spec}}]
    head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name}}
    return {**head, "spec": {"versions": versions}}


def operator(name: str) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator-1", "namespace": "kuberay", "labels": {"app.kubernetes.io/name": name}},
        "spec": {"containers": [{"name": "manager", "image": "quay.io/kuberay/operator:v1.7.0"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


@pytest.fixture
def cluster(overlay, tmp_path, monkeypatch):
    """A cluster with everything, as the check's user would reach it."""
    with api_server() as server:
        for doc in overlay:
            server.put(doc)
        server.put(labelled("Namespace", "kuberay", {"ifas.dev/kuberay-operator": "true"}))
        server.put(labelled("Namespace", "kubeflow", {"ifas.dev/object-store": "true", "ifas.dev/kfp": "true"}))
        server.put(labelled("Namespace", "db", {"ifas.dev/ledger": "true"}))
        for name, where, port in (("seaweedfs", "kubeflow", 8333), ("postgres", "db", 5432)):
            service = labelled("Service", name, {}, spec={"ports": [{"port": port}]})
            server.put({**service, "metadata": {**service["metadata"], "namespace": where}})
        url = "postgresql+psycopg://ifas:hush-hush@postgres.db.svc.cluster.local:5432/ifas"
        every = (*referenced.SECRET_KEYS, *referenced.OPTIONAL_KEYS)
        data = dict.fromkeys(every, "eA==") | {"IFAS_LEDGER": base64.b64encode(url.encode()).decode()}
        secret = labelled("Secret", "ifas-credentials", {}, data=data)
        server.put({**secret, "metadata": {"name": "ifas-credentials", "namespace": "ifas"}})
        server.put(operator("kuberay-operator"))
        gpu = {"allocatable": {"cpu": "63500m", "memory": "526000000Ki", "nvidia.com/gpu": "4"}}
        server.put(labelled("Node", "gpu-1", {"ifas.dev/accelerator": "gpu"}, status=gpu))
        annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
        meta = {"name": "standard", "annotations": annotations}
        server.put({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": meta, "provisioner": "x"})
        server.put(crd("rayclusters.ray.io"))
        server.put(crd("rayjobs.ray.io", fields=readiness.NEW_FIELDS))
        server.put(crd("workflows.argoproj.io", "v1alpha1"))
        for name, version in readiness.COMPONENTS.values():
            server.put(crd(name, version))
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(server.kubeconfig()))
        monkeypatch.setenv("KUBECONFIG", str(path))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        yield server


def findings(*words: str) -> list[dict]:
    shown = CliRunner().invoke(app, ["cluster", "check", "--json", *words])
    assert isinstance(shown.exception, LaunchError | None), shown.exception
    found = json.loads(shown.stdout)
    assert bool(shown.exception) == any(item["state"] == "missing" for item in found), "the exit code says it, too"
    return found


def test_a_cluster_that_has_everything(cluster):
    assert {item["state"] for item in findings()} == {"ok"}
    assert {method for method, *_ in cluster.seen} == {"GET"}, "a check changes nothing"
    shown = CliRunner().invoke(app, ["cluster", "check"])
    assert shown.exit_code == 0
    assert "hush" not in shown.output, "the ledger's URL holds a password"


def relabel(plural: str, name: str, label: str):
    def change(server):
        doc = server.get(plural, name)
        del doc["metadata"]["labels"][label]
        server.put(doc)

    return change


def drop(plural: str, name: str, namespace: str = "ifas"):
    return lambda server: server.remove(plural, name, namespace)


def old_policy(server):
    policy = server.get("networkpolicies", "allow-ray")
    (peer,) = policy["spec"]["ingress"][1]["from"]
    peer["podSelector"] = {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}
    server.put(policy)
    server.put(operator("kuberay"))


def not_ready(server):
    pod = operator("kuberay-operator")
    pod["status"]["conditions"][0]["status"] = "False"
    server.put(pod)


def unset(*keys: str):
    def change(server):
        secret = server.get("secrets", "ifas-credentials")
        for key in keys:
            del secret["data"][key]
        server.put(secret)

    return change


def ledger(url: str):
    def change(server):
        secret = server.get("secrets", "ifas-credentials")
        secret["data"]["IFAS_LEDGER"] = base64.b64encode(url.encode()).decode()
        server.put(secret)

    return change


def endpoint(url: str):
    def change(server):
        settings = server.get("configmaps", "ifas-settings")
        settings["data"]["AWS_ENDPOINT_URL"] = url
        server.put(settings)

    return change


def node(labels: dict, gpus: int):
    status = {"allocatable": {"nvidia.com/gpu": str(gpus)} if gpus else {}}
    return lambda server: server.put(labelled("Node", "gpu-2", labels, status=status))


FAULTS = {
    "no KubeRay": (drop("customresourcedefinitions", "rayjobs.ray.io"), "KubeRay's CRDs", "missing", "server-side"),
    "old KubeRay": (
        lambda server: server.put(crd("rayjobs.ray.io", fields=("entrypoint",))),
        "KubeRay's CRDs",
        "missing",
        "1.7",
    ),
    "no operator": (drop("pods", "operator-1", "kuberay"), "KubeRay's operator", "missing", "install KubeRay"),
    "operator not ready": (not_ready, "KubeRay's operator", "missing", "describe pods"),
    "operator's namespace": (
        relabel("namespaces", "kuberay", "ifas.dev/kuberay-operator"),
        "operator reaches Ray",
        "missing",
        "kubectl label namespace kuberay ifas.dev/kuberay-operator=true",
    ),
    "operator's own label": (old_policy, "operator reaches Ray", "missing", "apply the overlay"),
    "namespace": (drop("namespaces", "ifas"), "namespace", "missing", "infra/overlays"),
    "pod security": (
        relabel("namespaces", "ifas", "pod-security.kubernetes.io/enforce"),
        "namespace",
        "missing",
        "restricted",
    ),
    "account": (drop("serviceaccounts", "ifas-ray"), "accounts", "missing", "infra/overlays"),
    "policy": (drop("networkpolicies", "default-deny"), "network policies", "missing", "infra/overlays"),
    "secret": (drop("secrets", "ifas-credentials"), "credentials", "missing", "IFAS_LEDGER"),
    "key of the secret": (unset("IFAS_LEDGER"), "credentials", "missing", "edit secret"),
    "no witness": (unset("IFAS_WITNESS"), "credentials", "optional", ""),
    "events without a key": (unset("IFAS_EVENTS_SECRET"), "credentials", "missing", "edit secret"),
    "store's label": (
        relabel("namespaces", "kubeflow", "ifas.dev/object-store"),
        "object store",
        "missing",
        "kubectl label namespace kubeflow ifas.dev/object-store=true",
    ),
    "store's service": (drop("services", "seaweedfs", "kubeflow"), "object store", "missing", "install it"),
    "store's port": (endpoint("http://seaweedfs.kubeflow.svc:9000"), "object store", "missing", "[8333]"),
    "store's URL": (endpoint("http://seaweedfs.kubeflow.svc:port"), "object store", "missing", "correct it"),
    "store of another host": (endpoint("http://minio.lan:9000"), "object store", "missing", "ipBlock"),
    "store outside": (endpoint("https://s3.eu-west-1.amazonaws.com"), "object store", "missing", "ipBlock"),
    "ledger's label": (relabel("namespaces", "db", "ifas.dev/ledger"), "ledger", "missing", "ifas.dev/ledger=true"),
    "no pipelines": (drop("customresourcedefinitions", "workflows.argoproj.io"), "pipelines", "optional", "install"),
    "pipelines' label": (
        relabel("namespaces", "kubeflow", "ifas.dev/kfp"),
        "pipelines",
        "missing",
        "ifas.dev/kfp=true",
    ),
    "GPU without label": (node({}, 4), "GPUs", "missing", "kubectl label node gpu-2 ifas.dev/accelerator=gpu"),
    "label without GPU": (node({"ifas.dev/accelerator": "gpu"}, 0), "GPUs", "missing", "device plugin"),
    "ledger in a file": (ledger("sqlite:////tmp/ledger.db"), "ledger", "missing", "PostgreSQL"),
    "ledger outside": (ledger("postgresql://ifas:hush@postgres.lan:5432/ifas"), "ledger", "missing", "ipBlock"),
    "ledger's password": (ledger("postgresql://ifas:hu@sh:x@postgres.db/ifas"), "ledger", "missing", "percent-encode"),
    "no storage class": (drop("storageclasses", "standard"), "storage", "optional", "default"),
    "no Kueue": (drop("customresourcedefinitions", "localqueues.kueue.x-k8s.io"), "kueue", "optional", ""),
    "another Kueue": (
        lambda server: server.put(crd("localqueues.kueue.x-k8s.io", "v1beta1")),
        "kueue",
        "optional",
        "apiVersion",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_is_one_finding(cluster, fault):
    change, name, state, fix = FAULTS[fault]
    change(cluster)
    bad = [item for item in findings() if item["state"] != "ok"]
    ours = [item for item in bad if item["check"] == name]
    assert [item["state"] for item in ours] == [state]
    assert fix in ours[0]["fix"]
    others = {item["check"] for item in bad} - {name}
    # Without the operator, its Secret or the namespace, what hangs on them can't be told either.
    assert others <= {"operator reaches Ray", "ledger", "accounts", "network policies", "credentials", "object store"}
    assert not others or fault in ("no operator", "namespace", "secret", "key of the secret", "namespace")


def ours(kind: str, name: str, version: str = "v1", **more) -> dict:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "ifas"}, **more}


NAMED = (
    *("--set", "cluster.train.queue=training", "--set", "cluster.train.priority_class=high"),
    *("--set", "cluster.git_secret=ifas-git"),
    *("--set", "cluster.storage=/shared", "--set", "cluster.storage_claim=ifas-shared"),
)


def test_what_the_configuration_names_is_looked_for(cluster):
    def bad() -> list[str]:
        return [
            item["what"] for item in findings(*NAMED) if item["check"].startswith("named") and item["state"] != "ok"
        ]

    assert bad() == [
        "Secret ifas-git",
        "no PersistentVolumeClaim ifas-shared",
        "no LocalQueue training in ifas",
        "no PriorityClass high",
    ]
    cluster.put(ours("LocalQueue", "training", "kueue.x-k8s.io/v1beta2"))
    cluster.put({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}})
    cluster.put(ours("Secret", "ifas-git", data={"username": "eA=="}))
    cluster.put(ours("PersistentVolumeClaim", "ifas-shared", spec={"accessModes": ["ReadWriteOnce"]}))
    assert bad() == ["Secret ifas-git has no password", "ifas-shared is not ReadWriteMany"]
    cluster.put(ours("Secret", "ifas-git", data={"username": "eAo=", "password": "eA=="}))
    assert bad()[0] == "username in Secret ifas-git ends with a line end"
    cluster.put(ours("Secret", "ifas-git", data={"username": "eA==", "password": "eA=="}))
    cluster.put(ours("PersistentVolumeClaim", "ifas-shared", spec={"accessModes": ["ReadWriteMany"]}))
    assert bad() == []


def test_what_a_pod_may_do_without_is_told_as_optional_and_what_the_run_counts_on_is_not(cluster):
    for key in referenced.OPTIONAL_KEYS:
        unset(key)(cluster)

    def told(*words: str) -> dict[str, str]:
        return {item["what"]: item["state"] for item in findings(*words) if item["check"] == "credentials"}

    without = told()
    assert without.pop("ifas-credentials with its keys") == "ok"
    assert set(without.values()) == {"optional"}
    assert {what.split()[4].rstrip(":") for what in without} == set(referenced.OPTIONAL_KEYS)
    keys = ("--set", "package.key=env:IFAS_PACKAGE_KEY", "--set", "gate.key=env:IFAS_GATE_KEY")
    signed = told(*keys, "--set", "gate.events=http://trigger/events")
    assert signed["Secret ifas-credentials has no IFAS_EVENTS_SECRET, IFAS_GATE_KEY, IFAS_PACKAGE_KEY"] == "missing"


def test_a_key_in_pem_ends_with_a_line_end(cluster):
    secret = cluster.get("secrets", "ifas-credentials")
    secret["data"]["IFAS_PACKAGE_KEY"] = base64.b64encode(b"-----BEGIN PRIVATE KEY-----\nx\n-----END\n").decode()
    cluster.put(secret)
    assert {item["state"] for item in findings()} == {"ok"}
    secret["data"]["IFAS_WITNESS"] = base64.b64encode(b"s3://heads/ifas\n").decode()
    cluster.put(secret)
    assert "IFAS_WITNESS in Secret ifas-credentials ends with a line end" in {item["what"] for item in findings()}


def with_components() -> list[dict]:
    """What the components make, as kustomize renders them."""
    from tests.infra.test_manifests import documents

    kinds = ("Deployment", "StatefulSet", "ConfigMap")
    return [doc for doc in documents("local+postgres+review+trigger") if doc["kind"] in kinds]


def test_who_a_component_s_policy_lets_in_has_its_label(cluster):
    from tests.infra.test_manifests import documents

    for doc in documents("local+ingress+monitoring"):
        if doc["kind"] == "NetworkPolicy":
            cluster.put(doc)
    labels = ("ifas.dev/gateway", "ifas.dev/monitoring")

    def told() -> list[tuple[str, str]]:
        return [(item["state"], item["fix"]) for item in findings() if item["check"] == "components' labels"]

    assert told() == [("missing", f"kubectl label namespace NAMESPACE {label}=true") for label in labels]
    cluster.put(labelled("Namespace", "front", dict.fromkeys(labels, "true")))
    assert told() == [("ok", "")] * 2


def test_every_secret_key_that_a_component_s_pod_refers_to_is_looked_for(cluster):
    for doc in with_components():
        cluster.put(doc)

    def bad() -> set[tuple[str, str]]:
        return {(item["what"], item["state"]) for item in findings() if item["check"] == "components"} - {
            (f"{name} with its keys", "ok") for name in ("ifas-trigger", "ifas-postgres", "ifas-review")
        }

    names = ("ifas-trigger", "ifas-postgres", "ifas-review")
    assert bad() == {(f"Secret {name}", "missing") for name in names}
    for name in names:
        cluster.put(ours("Secret", name, data={"other": "eA=="}))
    senders = "IFAS_TRIGGER_STORE, IFAS_TRIGGER_SECRET, IFAS_TRIGGER_SECRET_REVIEW"
    unsigned = ("Secret ifas-review has no IFAS_REVIEW_SIGNING_KEY: ifas-review goes without", "optional")
    assert bad() == {
        (f"Secret ifas-trigger has no {senders}", "missing"),
        ("Secret ifas-postgres has no password", "missing"),
        ("Secret ifas-review has no IFAS_REVIEW, IFAS_REVIEW_KEY", "missing"),
        unsigned,
    }
    cluster.put(ours("Secret", "ifas-trigger", data=dict.fromkeys(senders.split(", "), "eA==")))
    cluster.put(ours("Secret", "ifas-postgres", data={"password": "eA=="}))
    cluster.put(ours("Secret", "ifas-review", data=dict.fromkeys(("IFAS_REVIEW", "IFAS_REVIEW_KEY"), "eA==")))
    assert bad() == {unsigned}
    # Settings that name the key of signatures make it one that is needed.
    (settings,) = [doc for doc in with_components() if "review.yaml" in doc.get("data", {})]
    settings["data"]["review.yaml"] += "  signing_key: env:IFAS_REVIEW_SIGNING_KEY\n"
    cluster.put(settings)
    assert bad() == {("Secret ifas-review has no IFAS_REVIEW_SIGNING_KEY", "missing")}


@pytest.mark.parametrize("password", ["hush/x", "hush#x", "hush?x", "12/x"])
def test_a_password_that_sqlalchemy_takes_is_no_host(cluster, password):
    ledger(f"postgresql+psycopg://ifas:{password}@postgres.db.svc:5432/ifas")(cluster)
    assert {item["state"] for item in findings()} == {"ok"}


@pytest.mark.parametrize(
    "url", ["hush-hush", "postgresql://ifas:hush@postgres.db:hush/ifas", "postgresql://u:a@hush@postgres.db/x"]
)
def test_what_is_no_url_is_not_shown(cluster, url):
    ledger(url)(cluster)
    (found,) = [item for item in findings() if item["check"] == "ledger"]
    assert (found["state"], found["what"]) == ("missing", "IFAS_LEDGER is no URL")
    assert "hush" not in json.dumps(found)


def test_both_names_of_the_operator_are_let_in(cluster):
    """Helm's chart says kuberay-operator, KubeRay's kustomize kuberay."""
    cluster.put(operator("kuberay"))
    assert {item["state"] for item in findings()} == {"ok"}


def test_a_ray_pod_is_not_the_operator(cluster):
    pod = operator("kuberay")
    pod["metadata"] |= {"name": "head", "labels": {"app.kubernetes.io/name": "kuberay", "ray.io/cluster": "c"}}
    cluster.put(pod)
    cluster.remove("pods", "operator-1", "kuberay")
    assert "no pod of KubeRay's operator" in {item["what"] for item in findings()}


def test_what_may_not_be_read_is_unknown_not_missing(cluster, tmp_path, monkeypatch):
    cluster.tokens["weak"] = "system:serviceaccount:ifas:ifas-pipeline-runner"
    path = tmp_path / "weak"
    path.write_text(json.dumps(cluster.kubeconfig("weak")))
    monkeypatch.setenv("KUBECONFIG", str(path))
    states = {item["check"]: item["state"] for item in findings()}
    assert states["Kubernetes"] == "ok"
    assert set(states.values()) == {"ok", "unknown"}


def test_room_for_the_workers_of_the_profile(cluster):
    def room(*words: str) -> set[tuple[str, str]]:
        return {(item["state"], item["what"]) for item in findings(*words) if item["check"] == "room"}

    job = ("--set", "cluster.train.ray=job", "--set", "cluster.train.gpus_per_worker=1")
    workers = ("--set", "cluster.train.max_workers=8", "--set")
    (_, said) = max(room(*job, *workers, "cluster.train.min_workers=4"), key=lambda item: item[1])
    assert said == "train wants 4 workers of 8 CPUs, 32 GiB, 1 nvidia.com/gpu: the nodes have room for 4"
    assert {state for state, _ in room(*job, *workers, "cluster.train.min_workers=4")} == {"ok"}
    assert "unknown" in {state for state, _ in room(*job, *workers, "cluster.train.min_workers=5")}
    cluster.remove("nodes", "gpu-1")
    assert "missing" in {state for state, _ in room(*job, *workers, "cluster.train.min_workers=4")}
    assert {item["state"] for item in findings(*job) if item["check"] == "GPUs"} == {"optional"}


def test_another_namespace(cluster):
    assert "namespace ifas-team-a" in {item["what"] for item in findings("--namespace", "ifas-team-a")}


def test_a_cluster_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    shown = CliRunner().invoke(app, ["cluster", "check"])
    assert isinstance(shown.exception, LaunchError)


def of_steps(compiled: Path) -> set[tuple[str, bool]]:
    """Keys of the Secret of steps that the pods of a compiled pipeline refer to, and whether they start without."""
    *_, platform = yaml.safe_load_all(compiled.read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    secrets = [one for executor in executors for one in executor.get("secretAsEnv", [])]
    return {
        (key["secretKey"], bool(one.get("optional")))
        for one in secrets
        if one["secretName"] == "ifas-credentials"
        for key in one["keyToEnv"]
    }


def test_the_check_knows_the_names_of_the_manifests(overlay):
    """What `infra` is made of, what the code looks for, and what the README tells people to make, is the same."""
    from ifas_pipelines import cluster as pipelines

    asked = {file.stem: of_steps(file) for file in (ROOT / "tests" / "pipeline" / "golden").glob("*.yaml")}
    assert set(asked) == {"release", "retrain"}
    for keys in asked.values():
        assert {key for key, optional in keys if not optional} == set(referenced.SECRET_KEYS)
        assert {key for key, optional in keys if optional} == set(referenced.OPTIONAL_KEYS)
    assert set(referenced.GIT_KEYS) == set(pipelines.GIT_KEYS)
    readme = (ROOT / "infra" / "README.md").read_text()
    assert all(f"`{key}`" in readme for key in referenced.OPTIONAL_KEYS)
    accounts = {doc["metadata"]["name"] for doc in overlay if doc["kind"] == "ServiceAccount"}
    assert accounts == set(readiness.ACCOUNTS)
    assert set(readiness.COMPONENTS) <= {path.name for path in (ROOT / "infra" / "components").iterdir()}
    for name, (crd_name, version) in readiness.COMPONENTS.items():
        text = "".join(path.read_text() for path in (ROOT / "infra" / "components" / name).glob("*.yaml"))
        assert f"{crd_name.partition('.')[2]}/{version}" in text
