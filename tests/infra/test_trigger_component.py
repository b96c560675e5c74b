"""infra/components/trigger, rendered with the overlay `local`: what it may do, and that its command and file work."""

import base64
import os
import subprocess

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from ifas.cli.main import app
from ifas.trigger.rules import load
from tests.infra.test_manifests import INFRA, KUBERNETES, kubectl

COMPONENT = INFRA / "components" / "trigger"


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    here = tmp_path_factory.mktemp("trigger").resolve()
    body = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(INFRA / "overlays" / "local", here)],
        "components": [os.path.relpath(COMPONENT, here)],
        "images": [{"name": "ifas", "newName": "registry.example.org/ifas", "digest": "sha256:" + "1" * 64}],
    }
    (here / "kustomization.yaml").write_text(yaml.safe_dump(body))
    done = subprocess.run([kubectl(), "kustomize", str(here)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = [doc for doc in yaml.safe_load_all(done.stdout) if doc]
    return {(doc["kind"], doc["metadata"]["name"]): doc for doc in found}


@pytest.fixture(scope="module")
def pod(documents):
    return documents["Deployment", "ifas-trigger"]["spec"]["template"]


def test_every_document_is_valid(documents):
    for doc in documents.values():
        if doc["apiVersion"].split("/")[0] in (
            "v1",
            "apps",
            "networking.k8s.io",
            "rbac.authorization.k8s.io",
            "policy",
        ):
            kubernetes_validate.validate(doc, KUBERNETES, strict=True)


def test_it_has_no_permission_and_no_token_but_for_kfp(documents, pod):
    account = pod["spec"]["serviceAccountName"]
    assert documents["ServiceAccount", account]["automountServiceAccountToken"] is False
    assert pod["spec"]["automountServiceAccountToken"] is False
    (tokens,) = [volume["projected"]["sources"] for volume in pod["spec"]["volumes"] if "projected" in volume]
    assert [source["serviceAccountToken"]["audience"] for source in tokens] == ["pipelines.kubeflow.org"]
    bindings = [doc for (kind, _), doc in documents.items() if kind.endswith("RoleBinding")]
    assert not [b for b in bindings if account in [subject["name"] for subject in b["subjects"]]]


def test_the_pod_is_restricted(pod):
    context, (container,) = pod["spec"]["securityContext"], pod["spec"]["containers"]
    assert (context["runAsNonRoot"], context["seccompProfile"]["type"]) == (True, "RuntimeDefault")
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= set(container["resources"]["limits"])
    assert "@sha256:" in container["image"], "an overlay sets the image"


def test_secrets_come_by_reference_only(documents, pod):
    assert not [name for kind, name in documents if kind == "Secret"]
    (container,) = pod["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "ifas-trigger"}}]
    assert not any(
        word in item["name"]
        for item in container["env"]
        for word in ("SECRET", "TOKEN", "STORE")
        if item["name"] != "KFP_TOKEN_FILE"
    )


def test_two_never_run_at_once(documents):
    spec = documents["Deployment", "ifas-trigger"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_policy_means_this_pod_and_names_both_ends(documents, pod):
    policy = documents["NetworkPolicy", "allow-trigger"]["spec"]
    labels = pod["metadata"]["labels"].items()
    assert policy["podSelector"]["matchLabels"].items() <= labels
    assert documents["Service", "ifas-trigger"]["spec"]["selector"].items() <= labels
    for rule in policy["ingress"]:
        assert all(peer["podSelector"]["matchLabels"] for peer in rule["from"])
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 8888, 5432}
    assert all(rule["to"] for rule in policy["egress"])
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} <= set(ports)
    assert str(ports["http"]) == container["args"][container["args"].index("--port") + 1]
    assert str(8888) in next(item["value"] for item in container["env"] if item["name"] == "KFP_ENDPOINT")


def test_what_decides_about_a_candidate_reaches_the_trigger(documents, pod):
    from ifas_pipelines.cluster import EVENT_SENDER

    sends, takes = (documents["NetworkPolicy", name]["spec"] for name in ("allow-event-senders", "allow-trigger"))
    assert sends["podSelector"]["matchLabels"] == {EVENT_SENDER: "true"}
    assert {"podSelector": sends["podSelector"]} in takes["ingress"][0]["from"]
    ((to,),) = [rule["to"] for rule in sends["egress"]]
    assert to["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert sends["egress"][0]["ports"] == takes["ingress"][0]["ports"]


def test_the_container_s_command_accepts_its_own_rules(documents, pod, tmp_path, monkeypatch):
    (container,) = pod["spec"]["containers"]
    (mounted,) = [volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if "configMap" in volume]
    # The name has the hash of the content: a change of the rules restarts the pod.
    assert mounted.startswith("ifas-trigger-")
    file = tmp_path / "trigger.yaml"
    file.write_text(documents["ConfigMap", mounted]["data"]["trigger.yaml"])
    for item in container["env"]:
        monkeypatch.setenv(item["name"], item["value"])
    monkeypatch.setenv("IFAS_TRIGGER_STORE", f"sqlite:///{tmp_path / 'trigger.db'}")
    for sender in load(file).senders.values():
        monkeypatch.setenv(sender.secret, "whsec_" + base64.b64encode(sender.secret.encode() * 2).decode())
    command = [str(file) if word == "/etc/ifas/trigger.yaml" else word for word in container["args"]]
    assert command[0] == "ifas"
    result = CliRunner().invoke(app, [*command[1:], "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "2 senders, 2 rules" in result.output
