"""Whether what the pods of ifas talk to is there, and whether the network policies let them through."""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import urlsplit

from ifas.launch.rayjob import RayJobSpec
from ifas.launch.survey import Survey, Told, selects

OPERATOR_LABEL, STORE_LABEL, LEDGER_LABEL, KFP_LABEL = (
    "ifas.dev/kuberay-operator",
    "ifas.dev/object-store",
    "ifas.dev/ledger",
    "ifas.dev/kfp",
)


#: Label of namespaces that a component's policy lets in -> who is in them.
DOORS = {"ifas.dev/gateway": "the Gateway's proxies", "ifas.dev/monitoring": "Prometheus"}


def operators(cluster: Survey) -> list[dict[str, Any]]:
    """Pods of KubeRay's operator."""
    # Pods of a Ray cluster are named kuberay, too.
    selector = "app.kubernetes.io/name in (kuberay-operator,kuberay),!ray.io/cluster"
    return cluster.items("/api/v1/pods", labelSelector=selector)


def operator_reaches_ray(cluster: Survey) -> Told:
    """What a policy leaves out makes a job that succeeded end as failed: the operator can't ask for its state."""
    pods = operators(cluster)
    policy = cluster.get(cluster.ours("networkpolicies", "allow-ray", "networking.k8s.io/v1"))
    if not pods or policy is None:
        yield "unknown", "needs the operator and the policy allow-ray", ""
        return
    for pod in pods[:1]:
        where = pod["metadata"]["namespace"]
        around, own = cluster.labels_of(where), pod["metadata"].get("labels") or {}
        peers = [peer for rule in policy["spec"].get("ingress", []) for peer in rule.get("from", [])]
        if any(
            "namespaceSelector" in peer
            and selects(peer["namespaceSelector"], around)
            and selects(peer.get("podSelector", {}), own)
            for peer in peers
        ):
            yield "ok", f"the policy allow-ray lets the operator in {where} ask for a job's state", ""
        elif around.get(OPERATOR_LABEL) != "true":
            yield (
                "missing",
                f"the namespace {where} of KubeRay's operator has no label",
                f"kubectl label namespace {where} {OPERATOR_LABEL}=true",
            )
        else:
            yield (
                "missing",
                f"the policy allow-ray does not let {pod['metadata']['name']} in",
                "apply the overlay again",
            )


def object_store(cluster: Survey) -> Told:
    """The service that ifas-settings names."""
    settings = cluster.get(cluster.ours("configmaps", RayJobSpec.config_map))
    url = ((settings or {}).get("data") or {}).get("AWS_ENDPOINT_URL", "")
    if not url:
        yield "missing", f"AWS_ENDPOINT_URL in ConfigMap {RayJobSpec.config_map}", "set it in your overlay"
        return
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        yield "missing", f"AWS_ENDPOINT_URL {url} is no URL: {error}", "correct it in your overlay"
        return
    yield from _reached(cluster, host, port, STORE_LABEL, "allow-ray")


def ledger(cluster: Survey) -> Told:
    """The service that IFAS_LEDGER names."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    secret = cluster.get(cluster.ours("secrets", RayJobSpec.secret))
    coded = ((secret or {}).get("data") or {}).get("IFAS_LEDGER", "")
    if not coded:
        yield "unknown", "IFAS_LEDGER is not set", ""
        return
    url = base64.b64decode(coded).decode(errors="replace").strip()
    if url.startswith("sqlite"):
        yield (
            "missing",
            "the ledger is a file of one pod, lost with it",
            "use PostgreSQL, e.g. infra/components/postgres",
        )
        return
    # The URL holds a password: only its host is ever shown, and only if it can be nothing else.
    try:
        # As the ledger itself reads it: urlsplit ends the host at a / # or ? of the password.
        parts = make_url(url)
        host, port = parts.host or "", parts.port
    except (ArgumentError, ValueError):
        host, port = "", None
    if not re.fullmatch(r"[\w.:-]+", host):
        yield "missing", "IFAS_LEDGER is no URL", f"percent-encode its password in Secret {RayJobSpec.secret}"
        return
    yield from _reached(cluster, host, port, LEDGER_LABEL, "allow-steps")


def _reached(cluster: Survey, host: str, port: int | None, label: str, policy: str) -> Told:
    """Whether there is a service at `host`, and the label that opens the policies to its namespace."""
    words = host.split(".")
    outside = len(words) > 2 and words[2] != "svc"
    # minio.lan is a host of the network, unless there is a namespace lan.
    if outside or (len(words) == 2 and cluster.get(f"/api/v1/namespaces/{words[1]}") is None):
        rule = cluster.get(cluster.ours("networkpolicies", policy, "networking.k8s.io/v1")) or {}
        out = [peer for egress in rule.get("spec", {}).get("egress", []) for peer in egress.get("to", [])]
        if any("ipBlock" in peer for peer in out):
            yield "ok", f"{host}, outside the cluster", ""
        else:
            yield (
                "missing",
                f"{host} is outside the cluster",
                f"give {policy} its address range (ipBlock) in your overlay, or correct the host",
            )
        return
    name, where = words[0], words[1] if len(words) > 1 else cluster.namespace
    service = cluster.get(f"/api/v1/namespaces/{where}/services/{name}")
    if service is None:
        yield "missing", f"there is no service {name} in namespace {where}", "correct the host, or install it"
        return
    ports = [one.get("port") for one in service.get("spec", {}).get("ports", [])]
    if port and ports and port not in ports:
        yield "missing", f"service {name} in {where} has no port {port}", f"use one of {ports}"
    elif where != cluster.namespace and cluster.labels_of(where).get(label) != "true":
        yield "missing", f"namespace {where} has no label {label}=true", f"kubectl label namespace {where} {label}=true"
    else:
        yield "ok", f"{name} in {where}", ""


def kfp(cluster: Survey) -> Told:
    """Kubeflow Pipelines, and the label of its namespace."""
    if cluster.crd("workflows.argoproj.io") is None:
        yield (
            "optional",
            "no Kubeflow Pipelines: `ifas submit` and schedules need it",
            "install it by its own instructions",
        )
    elif not cluster.items("/api/v1/namespaces", labelSelector=f"{KFP_LABEL}=true"):
        yield (
            "missing",
            f"no namespace has the label {KFP_LABEL}=true",
            f"kubectl label namespace kubeflow {KFP_LABEL}=true",
        )
    else:
        yield "ok", "there, and its namespace has its label", ""


def doors(cluster: Survey) -> Told:
    """Namespaces that the policies of the applied components let in."""
    policies = cluster.items(cluster.ours("networkpolicies", "", "networking.k8s.io/v1"))
    peers = [peer for one in policies for rule in one["spec"].get("ingress", []) for peer in rule.get("from", [])]
    asked = {label for peer in peers for label in peer.get("namespaceSelector", {}).get("matchLabels", {})}
    for label in sorted(asked & set(DOORS)):
        if cluster.items("/api/v1/namespaces", labelSelector=f"{label}=true"):
            yield "ok", f"the policies let {DOORS[label]} in", ""
        else:
            fix = f"kubectl label namespace NAMESPACE {label}=true"
            yield "missing", f"no namespace has the label {label}=true: {DOORS[label]} can't come in", fix
