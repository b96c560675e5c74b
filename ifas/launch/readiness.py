"""Says what a cluster lacks before anything fails on it: operators, CRDs, labels, policies, secrets, nodes.

Only reads. What the caller may not read is reported as unknown, not as missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ifas.core.config import RunConfig
from ifas.launch import nodes, reachable, referenced
from ifas.launch.survey import NotAllowed, State, Survey, Told, served

#: The served model's preStop sleeps, which older API servers refuse.
OLDEST = (1, 30)

#: Fields of a RayJob that we send and that operators before 1.6 do not know.
NEW_FIELDS = ("preRunningDeadlineSeconds", "submitterConfig")

ACCOUNTS = ("ifas-pipeline-runner", "ifas-ray", "ifas-ray-autoscaler", "ifas-serving")

#: Component of infra/components -> the CRD that it needs, and the version of it.
COMPONENTS = {
    "kueue": ("localqueues.kueue.x-k8s.io", "v1beta2"),
    "monitoring": ("podmonitors.monitoring.coreos.com", "v1"),
    "ingress": ("httproutes.gateway.networking.k8s.io", "v1"),
    "review-ingress": ("httproutes.gateway.networking.k8s.io", "v1"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        check: its name.
        state: `optional` is a thing that is not there and that only some use.
        what: what was found.
        fix: how to get it; empty where nothing is to be done.
    """

    check: str
    state: State
    what: str
    fix: str = ""


def check(api: Any, config: RunConfig) -> list[Finding]:
    """Everything that was looked for, in the order in which it should be set right.

    Args:
        api: a `kubernetes.client.ApiClient`.
        config: its `cluster` says which namespace is looked at, and what the RayJobs ask for.

    Raises:
        LaunchError: the API server can't be reached.
    """
    cluster = Survey(api, config)
    findings: list[Finding] = []
    for name, look in CHECKS.items():
        try:
            # What was found before a refusal stays.
            findings.extend(Finding(name, *told) for told in look(cluster))
        except NotAllowed as error:
            findings.append(Finding(name, "unknown", str(error), "ask somebody who may, e.g. a cluster administrator"))
    return findings


def _version(cluster: Survey) -> Told:
    found = cluster.get("/version") or {}
    numbers = tuple(int(re.sub(r"\D", "", str(found.get(part, "0"))) or 0) for part in ("major", "minor"))
    said = f"Kubernetes {found.get('gitVersion', '?')}"
    if numbers < OLDEST:
        yield "missing", said, f"update it to {OLDEST[0]}.{OLDEST[1]} or later"
    else:
        yield "ok", said, ""


def _kuberay_crds(cluster: Survey) -> Told:
    install = "kubectl apply --server-side the CRDs of KubeRay 1.7 (client-side apply can't: they are too large)"
    for name in ("rayclusters.ray.io", "rayjobs.ray.io"):
        crd = cluster.crd(name)
        if crd is None or "v1" not in served(crd):
            yield "missing", f"{name} v1 is not there", install
            continue
        if name == "rayjobs.ray.io":
            (schema,) = [v.get("schema", {}) for v in crd["spec"]["versions"] if v["name"] == "v1"]
            known = schema.get("openAPIV3Schema", {}).get("properties", {}).get("spec", {}).get("properties", {})
            lacking = [field for field in NEW_FIELDS if known and field not in known]
            if lacking:
                yield "missing", f"{name} does not know {', '.join(lacking)}: it is of an older KubeRay", install
                continue
        yield "ok", f"{name} v1", ""


def _operator(cluster: Survey) -> Told:
    pods = reachable.operators(cluster)
    if not pods:
        yield "missing", "no pod of KubeRay's operator", "install KubeRay 1.7 in a namespace of its own"
        return
    ready = [pod for pod in pods if _ready(pod)]
    pod = (ready or pods)[0]
    image = str(pod["spec"]["containers"][0].get("image", ""))
    where = f"{image or 'operator'} in {pod['metadata']['namespace']}"
    if ready:
        yield "ok", where, ""
    else:
        yield "missing", f"{where} is not ready", f"kubectl -n {pod['metadata']['namespace']} describe pods"


def _ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _namespace(cluster: Survey) -> Told:
    found = cluster.get(f"/api/v1/namespaces/{cluster.namespace}")
    if found is None:
        yield "missing", f"namespace {cluster.namespace}", "kubectl apply --server-side -k infra/overlays/..."
        return
    level = (found["metadata"].get("labels") or {}).get("pod-security.kubernetes.io/enforce", "none")
    if level == "restricted":
        yield "ok", f"{cluster.namespace} enforces Pod Security restricted", ""
    else:
        yield (
            "missing",
            f"{cluster.namespace} enforces Pod Security {level}",
            "apply the overlay, which says restricted",
        )


def _accounts(cluster: Survey) -> Told:
    for name in ACCOUNTS:
        if cluster.get(cluster.ours("serviceaccounts", name)) is None:
            yield "missing", f"service account {name}", "kubectl apply --server-side -k infra/overlays/..."
        else:
            yield "ok", name, ""


def _policies(cluster: Survey) -> Told:
    there = {p["metadata"]["name"] for p in cluster.items(cluster.ours("networkpolicies", "", "networking.k8s.io/v1"))}
    lacking = sorted({"default-deny", "allow-ray", "allow-steps", "allow-clients"} - there)
    if lacking:
        yield "missing", f"network policies {', '.join(lacking)}", "kubectl apply --server-side -k infra/overlays/..."
    else:
        yield "ok", "there; whether the network plugin enforces them, `make cluster-test` finds out", ""


def _named(cluster: Survey) -> Told:
    """Objects that the configuration names."""
    settings = cluster.settings
    if settings.git_secret:
        yield from referenced.keys(cluster, settings.git_secret, referenced.GIT_KEYS)
    if settings.storage_claim:
        claim = cluster.get(cluster.ours("persistentvolumeclaims", settings.storage_claim))
        if claim is None:
            yield "missing", f"no PersistentVolumeClaim {settings.storage_claim}", "make it, or correct storage_claim"
        elif "ReadWriteMany" not in claim.get("spec", {}).get("accessModes", []):
            yield "missing", f"{settings.storage_claim} is not ReadWriteMany", "every pod of a run mounts it"
    for step, job in cluster.jobs.items():
        if job.ray != "job":
            continue
        if job.queue and not _queue(cluster, job.queue):
            fix = f"apply infra/components/kueue, or correct cluster.{step}.queue"
            yield "missing", f"no LocalQueue {job.queue} in {cluster.namespace}", fix
        place = f"/apis/scheduling.k8s.io/v1/priorityclasses/{job.priority_class}"
        if job.priority_class and cluster.get(place) is None:
            yield (
                "missing",
                f"no PriorityClass {job.priority_class}",
                f"make it, or correct cluster.{step}.priority_class",
            )


def _queue(cluster: Survey, name: str) -> bool:
    crd = cluster.crd(COMPONENTS["kueue"][0])
    versions = served(crd) if crd else []
    return any(cluster.get(cluster.ours("localqueues", name, f"kueue.x-k8s.io/{one}")) for one in versions)


def _component(cluster: Survey, name: str) -> Told:
    wanted, version = COMPONENTS[name]
    crd = cluster.crd(wanted)
    if crd is None:
        yield "optional", f"no {wanted}: infra/components/{name} can't be applied", ""
    elif version not in served(crd):
        others = ", ".join(served(crd))
        yield (
            "optional",
            f"{wanted} serves {others}, infra/components/{name} is {version}",
            "update it, or patch apiVersion",
        )
    else:
        yield "ok", f"{wanted} {version}", ""


CHECKS: dict[str, Callable[[Survey], Told]] = {
    "Kubernetes": _version,
    "KubeRay's CRDs": _kuberay_crds,
    "KubeRay's operator": _operator,
    "namespace": _namespace,
    "accounts": _accounts,
    "network policies": _policies,
    "operator reaches Ray": reachable.operator_reaches_ray,
    "credentials": referenced.credentials,
    "named in the configuration": _named,
    "components": referenced.workloads,
    "components' labels": reachable.doors,
    "object store": reachable.object_store,
    "ledger": reachable.ledger,
    "pipelines": reachable.kfp,
    "GPUs": nodes.gpus,
    "room": nodes.room,
    "storage": nodes.storage_class,
    **{name: partial(_component, name=name) for name in COMPONENTS},
}
