"""`make cluster-test`, rehearsed: the program, kubectl and `ifas` are the real ones, the cluster is the stand-in.

Steps, the entrypoints of RayJobs and the Bento really run, as processes on a real object store.
"""

from __future__ import annotations

import json
import platform
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.api_server import Refused, api_server
from tests.cluster import prove
from tests.cluster.operators import Operators
from tests.servers import s3_server


@contextmanager
def stand_in(tmp: Path, **options):
    """A cluster with KubeRay's operator, and what is needed to prove ifas on it."""
    with api_server() as server, s3_server(tmp / "s3") as store:
        labels = {"app.kubernetes.io/name": "kuberay"}
        meta = {"name": "operator", "namespace": "kuberay", "labels": labels, "ownerReferences": [{"uid": "x"}]}
        spec = {"containers": [{"name": "manager", "image": "operator:v1.7.0"}]}
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kuberay"}})
        server.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status})
        allocatable = {"cpu": "8", "memory": "32Gi"}
        machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
        status = {"allocatable": allocatable, "nodeInfo": {"operatingSystem": "linux", "architecture": machine}}
        server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": status})
        for name in ("rayclusters.ray.io", "rayjobs.ray.io"):
            head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
            server.put({**head, "metadata": {"name": name}, "spec": {"versions": [{"name": "v1", "served": True}]}})
        kubeconfig = tmp / "kubeconfig"
        kubeconfig.write_text(json.dumps(server.kubeconfig()))
        (tmp / "weed").write_bytes(b"binary" * 100_000)
        (tmp / "scratch").mkdir()
        operators = Operators(server, store, tmp / "pods", **options)
        operators.start()
        try:
            small = {"patience": 600, "steps": 60}
            yield server, prove.Proof(kubeconfig, "ifas:1", tmp / "scratch", tmp / "weed", **small)
        finally:
            operators.stop()


def outcome(rows: list[prove.Row]) -> dict[str, str]:
    return {row.name: row.state for row in rows}


def nothing_is_left(server) -> None:
    names = {doc["metadata"]["name"] for doc in server.items("namespaces")}
    assert names == {"ifas", "kuberay"}
    labels = server.get("namespaces", "kuberay")["metadata"].get("labels") or {}
    assert "ifas.dev/kuberay-operator" not in labels, "a label that was set for the test is taken off again"
    assert not server.items("rayjobs")


@pytest.mark.slow
def test_every_row_holds(tmp_path, capsys):
    with stand_in(tmp_path, hold=20) as (server, proof):
        rows = prove.prove(proof)
        names = [*(row.name for row in prove.ROWS), "removed"]
        assert outcome(rows) == dict.fromkeys(names, "ok"), capsys.readouterr().out
        nothing_is_left(server)
    shown = prove.table(rows)
    assert all(row.name in shown for row in prove.ROWS)


@pytest.mark.slow
def test_what_is_wrong_fails_its_row_and_those_that_need_it(tmp_path, capsys):
    """An account that may too much, and a store that can't be made: the program says so, and cleans up."""

    def refuse(verb, resource, doc):
        if resource.kind == "Pod" and doc["metadata"]["name"] == "store":
            raise Refused(403, "Forbidden", "pods are not welcome today")

    with stand_in(tmp_path) as (server, proof):
        server.admission.append(refuse)
        server.put(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": "too-much"},
                "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}],
            }
        )
        subject = {"kind": "ServiceAccount", "name": "ifas-ray", "namespace": proof.namespace}
        binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding"}
        ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "too-much"}
        server.put({**binding, "metadata": {"name": "too-much"}, "roleRef": ref, "subjects": [subject]})
        rows = prove.prove(proof, only=("cluster", "overlay", "store", "ready", "rbac", "data", "captions"))
        said = capsys.readouterr().out
        nothing_is_left(server)
    states = outcome(rows)
    assert states["overlay"] == "ok"
    assert states["store"] == states["rbac"] == "FAILED"
    assert states["ready"] == states["data"] == states["captions"] == "not run"
    assert "pods are not welcome today" in said, "what the command said is shown in full"
    assert "auth can-i list secrets" in said


@pytest.mark.slow
def test_nodes_that_can_not_run_this_machine_s_binary_are_told_before_it_is_copied(tmp_path, capsys):
    with stand_in(tmp_path) as (server, proof):
        node = server.get("nodes", "n", "")
        node["status"]["nodeInfo"]["architecture"] = "s390x"
        server.put(node)
        rows = prove.prove(proof, only=("cluster", "overlay", "store"))
        nothing_is_left(server)
    assert outcome(rows) == {"cluster": "ok", "overlay": "ok", "store": "FAILED", "removed": "ok"}
    assert "the nodes are linux/s390x, this machine is linux/" in capsys.readouterr().out


@pytest.mark.slow
def test_a_namespace_of_somebody_else_is_left_alone(tmp_path):
    with stand_in(tmp_path) as (server, proof):
        server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": proof.namespace}})
        with pytest.raises(prove.Failed, match="left alone"):
            prove.prove(proof)
        assert server.get("namespaces", proof.namespace) is not None


def test_a_policy_that_is_missing_is_a_connection_that_is_open(tmp_path):
    """The flows are told from the policies: what the table says is not said anyway."""
    import yaml

    base = Path(__file__).parents[2] / "infra" / "base"
    with api_server() as server:
        operators = Operators(server, None, tmp_path)
        for doc in yaml.safe_load_all((base / "network-policies.yaml").read_text()):
            server.put({**doc, "metadata": {**doc["metadata"], "namespace": "ifas"}})
        store = {"name": "storage", "labels": {"ifas.dev/object-store": "true"}}
        server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": store})
        kuberay = {"name": "kuberay", "labels": {"ifas.dev/kuberay-operator": "true"}}
        server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": kuberay})

        def pod(name: str, labels: dict, namespace: str = "ifas", port: int = 3000) -> dict:
            ports = [{"name": "http", "containerPort": port}]
            meta = {"name": name, "namespace": namespace, "labels": labels}
            status = {"podIP": operators.new_address()}
            spec = {"containers": [{"name": "c", "image": "i:1", "ports": ports}]}
            return server.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status})

        step = pod("step", {"pipelines.kubeflow.org/v2_component": "true"})
        ray = pod("ray", {"app.kubernetes.io/component": "ray"})
        model = pod("model", {"app.kubernetes.io/component": "serving"})
        client = pod("client", {"ifas.dev/client": "true"})
        stranger = pod("stranger", {})
        s3 = pod("s3", {}, "storage")
        helm = pod("helm", {"app.kubernetes.io/name": "kuberay-operator"}, "kuberay")
        kustomize = pod("kustomize", {"app.kubernetes.io/name": "kuberay"}, "kuberay")

        def opened(source: dict, target: dict, port: int) -> bool:
            return operators.open(source, target["status"]["podIP"], port)

        may = {
            ("step", "s3"): opened(step, s3, 8333),
            ("ray", "s3"): opened(ray, s3, 8333),
            ("ray", "ray"): opened(ray, ray, 6379),
            ("helm", "ray"): opened(helm, ray, 8265),
            ("kustomize", "ray"): opened(kustomize, ray, 8265),
            ("client", "model"): opened(client, model, 3000),
        }
        may_not = {
            ("stranger", "s3"): opened(stranger, s3, 8333),
            ("step", "ray"): opened(step, ray, 8265),
            ("s3", "ray"): opened(s3, ray, 8265),
            ("helm", "ray's other ports"): opened(helm, ray, 10001),
            ("stranger", "model"): opened(stranger, model, 3000),
            ("model", "s3"): opened(model, s3, 8333),
        }
        assert [flow for flow, found in may.items() if not found] == []
        assert [flow for flow, found in may_not.items() if found] == []
        server.remove("networkpolicies", "default-deny")
        assert opened(stranger, s3, 8333), "without default-deny a pod that no policy means may go anywhere"


def test_the_program_says_what_it_needs(capsys):
    begin = time.monotonic()
    with pytest.raises(SystemExit):
        prove.main(["--image", "x"])
    assert "--kubeconfig" in capsys.readouterr().err
    assert time.monotonic() - begin < 5
