"""Says what a cluster lacks before anything fails on it: operators, CRDs, labels, policies, secrets, nodes.

Only reads. What the caller may not read is reported as unknown, not as missing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from urllib.parse import urlsplit

from ifas.core.config import RayConfig, RunConfig
from ifas.core.errors import LaunchError
from ifas.launch.cluster import send
from ifas.launch.rayjob import STEPS, RayJobSpec

#: The served model's preStop sleeps, which older API servers refuse.
OLDEST = (1, 30)

#: Fields of a RayJob that we send and that operators before 1.6 do not know.
NEW_FIELDS = ("preRunningDeadlineSeconds", "submitterConfig")

SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "IFAS_LEDGER")
GIT_KEYS = ("username", "password")
#: Workload of a component, whose Secret has its name -> its kind, and the Secret's key.
SECRETS_OF_COMPONENTS = {
    "ifas-trigger": ("deployments", "IFAS_TRIGGER_STORE"),
    "ifas-postgres": ("statefulsets", "password"),
}
ACCOUNTS = ("ifas-pipeline-runner", "ifas-ray", "ifas-ray-autoscaler", "ifas-serving")
OPERATOR_LABEL, STORE_LABEL, LEDGER_LABEL, KFP_LABEL, GPU_LABEL = (
    "ifas.dev/kuberay-operator",
    "ifas.dev/object-store",
    "ifas.dev/ledger",
    "ifas.dev/kfp",
    "ifas.dev/accelerator",
)

#: Component of infra/components -> the CRD that it needs, and the version of it.
COMPONENTS = {
    "kueue": ("localqueues.kueue.x-k8s.io", "v1beta2"),
    "monitoring": ("podmonitors.monitoring.coreos.com", "v1"),
    "ingress": ("httproutes.gateway.networking.k8s.io", "v1"),
}

State = Literal["ok", "missing", "unknown", "optional"]


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


class _NotAllowed(Exception):
    """The caller may not read this."""


class _Cluster:
    """Reads of one namespace and of the cluster around it."""

    def __init__(self, api: Any, config: RunConfig) -> None:
        self.api = api
        self.settings = config.cluster
        self.namespace = config.cluster.namespace
        self.jobs: dict[str, RayConfig] = {step: getattr(config.cluster, step) for step in STEPS}

    def get(self, path: str, **query: str) -> dict[str, Any] | None:
        """The object or list at `path`; None where there is none."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            found = send(self.api, "GET", path, list(query.items()))
        except ApiException as error:
            if error.status == 404:
                return None
            if error.status in (401, 403):
                raise _NotAllowed(f"you may not read {path.partition('?')[0]}") from error
            raise LaunchError(f"the cluster refused GET {path}: {error.reason}", "start again later") from error
        except (HTTPError, OSError) as error:
            host = self.api.configuration.host
            raise LaunchError(
                f"the Kubernetes API server at {host} can't be reached: {error}", "check KUBECONFIG and the network"
            ) from error
        return dict(found)

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        return list((self.get(path, **query) or {}).get("items", []))

    def ours(self, plural: str, name: str = "", group: str = "") -> str:
        """Path of a kind, or of one object, in the namespace of ifas."""
        base = f"/apis/{group}" if group else "/api/v1"
        return f"{base}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def labels_of(self, namespace: str) -> Mapping[str, str]:
        found = self.get(f"/api/v1/namespaces/{namespace}")
        return ((found or {}).get("metadata", {}).get("labels")) or {}


def check(api: Any, config: RunConfig) -> list[Finding]:
    """Everything that was looked for, in the order in which it should be set right.

    Args:
        api: a `kubernetes.client.ApiClient`.
        config: its `cluster` says which namespace is looked at, and what the RayJobs ask for.

    Raises:
        LaunchError: the API server can't be reached.
    """
    cluster = _Cluster(api, config)
    findings: list[Finding] = []
    for name, look in CHECKS.items():
        try:
            # What was found before a refusal stays.
            findings.extend(Finding(name, *told) for told in look(cluster))
        except _NotAllowed as error:
            findings.append(Finding(name, "unknown", str(error), "ask somebody who may, e.g. a cluster administrator"))
    return findings


#: State, what, and fix of a finding.
Told = Iterator[tuple[State, str, str]]


def _version(cluster: _Cluster) -> Told:
    found = cluster.get("/version") or {}
    numbers = tuple(int(re.sub(r"\D", "", str(found.get(part, "0"))) or 0) for part in ("major", "minor"))
    said = f"Kubernetes {found.get('gitVersion', '?')}"
    if numbers < OLDEST:
        yield "missing", said, f"update it to {OLDEST[0]}.{OLDEST[1]} or later"
    else:
        yield "ok", said, ""


def _crd(cluster: _Cluster, name: str) -> dict[str, Any] | None:
    return cluster.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")


def _served(crd: Mapping[str, Any]) -> list[str]:
    return [str(version["name"]) for version in crd["spec"]["versions"] if version.get("served", True)]


def _kuberay_crds(cluster: _Cluster) -> Told:
    install = "kubectl apply --server-side the CRDs of KubeRay 1.7 (client-side apply can't: they are too large)"
    for name in ("rayclusters.ray.io", "rayjobs.ray.io"):
        crd = _crd(cluster, name)
        if crd is None or "v1" not in _served(crd):
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


def _operators(cluster: _Cluster) -> list[dict[str, Any]]:
    # Pods of a Ray cluster are named kuberay, too.
    selector = "app.kubernetes.io/name in (kuberay-operator,kuberay),!ray.io/cluster"
    return cluster.items("/api/v1/pods", labelSelector=selector)


def _operator(cluster: _Cluster) -> Told:
    pods = _operators(cluster)
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


def _operator_reaches_ray(cluster: _Cluster) -> Told:
    """What a policy leaves out makes a job that succeeded end as failed: the operator can't ask for its state."""
    pods = _operators(cluster)
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


def _namespace(cluster: _Cluster) -> Told:
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


def _accounts(cluster: _Cluster) -> Told:
    for name in ACCOUNTS:
        if cluster.get(cluster.ours("serviceaccounts", name)) is None:
            yield "missing", f"service account {name}", "kubectl apply --server-side -k infra/overlays/..."
        else:
            yield "ok", name, ""


def _policies(cluster: _Cluster) -> Told:
    there = {p["metadata"]["name"] for p in cluster.items(cluster.ours("networkpolicies", "", "networking.k8s.io/v1"))}
    lacking = sorted({"default-deny", "allow-ray", "allow-steps", "allow-clients"} - there)
    if lacking:
        yield "missing", f"network policies {', '.join(lacking)}", "kubectl apply --server-side -k infra/overlays/..."
    else:
        yield "ok", "there; whether the network plugin enforces them, `make cluster-test` finds out", ""


def _secret(cluster: _Cluster) -> Told:
    yield from _keys(cluster, RayJobSpec.secret, SECRET_KEYS)


def _store(cluster: _Cluster) -> Told:
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


def _ledger(cluster: _Cluster) -> Told:
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


def _reached(cluster: _Cluster, host: str, port: int | None, label: str, policy: str) -> Told:
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


def _named(cluster: _Cluster) -> Told:
    """Objects that the configuration names."""
    settings = cluster.settings
    if settings.git_secret:
        yield from _keys(cluster, settings.git_secret, GIT_KEYS)
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


def _queue(cluster: _Cluster, name: str) -> bool:
    crd = _crd(cluster, COMPONENTS["kueue"][0])
    versions = _served(crd) if crd else []
    return any(cluster.get(cluster.ours("localqueues", name, f"kueue.x-k8s.io/{one}")) for one in versions)


def _keys(cluster: _Cluster, name: str, keys: Sequence[str]) -> Told:
    found = cluster.get(cluster.ours("secrets", name))
    held = {key: base64.b64decode(value) for key, value in ((found or {}).get("data") or {}).items() if value}
    lacking = [key for key in keys if key not in held]
    ended = [key for key in keys if held.get(key, b"").endswith(b"\n")]
    if found is None:
        yield "missing", f"Secret {name}", f"infra/README.md says how it is made, with {', '.join(keys)}"
    elif lacking:
        fix = f"kubectl -n {cluster.namespace} edit secret {name}"
        yield "missing", f"Secret {name} has no {', '.join(lacking)}", fix
    elif ended:
        fix = "make it again from files without a line end, which whoever reads the value takes for a part of it"
        yield "missing", f"{', '.join(ended)} in Secret {name} ends with a line end", fix
    else:
        yield "ok", f"{name} with its keys", ""


def _applied(cluster: _Cluster) -> Told:
    """Secrets of the components that are applied."""
    for name, (plural, key) in SECRETS_OF_COMPONENTS.items():
        if cluster.get(cluster.ours(plural, name, "apps/v1")) is not None:
            yield from _keys(cluster, name, (key,))


def _kfp(cluster: _Cluster) -> Told:
    if _crd(cluster, "workflows.argoproj.io") is None:
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


def _gpus(cluster: _Cluster) -> Told:
    resource = cluster.jobs["train"].gpu_resource
    with_gpus, labelled = [], []
    total = 0
    for node in cluster.items("/api/v1/nodes"):
        count = int((node.get("status", {}).get("allocatable") or {}).get(resource, 0))
        total += count
        with_gpus += [node["metadata"]["name"]] if count else []
        marked = (node["metadata"].get("labels") or {}).get(GPU_LABEL) == "gpu"
        labelled += [node["metadata"]["name"]] if marked else []
    bare, empty = sorted(set(with_gpus) - set(labelled)), sorted(set(labelled) - set(with_gpus))
    if bare:
        fix = f"kubectl label node {' '.join(bare)} {GPU_LABEL}=gpu"
        yield "missing", f"{len(bare)} of {len(with_gpus)} nodes with {resource} have no label {GPU_LABEL}=gpu", fix
    if empty:
        yield "missing", f"{', '.join(empty)} has the label but offers no {resource}", "install the GPU's device plugin"
    if not with_gpus and not empty:
        yield "optional", f"no node offers {resource}", ""
    elif not bare and not empty:
        yield "ok", f"{total} on {len(with_gpus)} nodes", ""


def _room(cluster: _Cluster) -> Told:
    """Whether the workers of the profile's RayJobs fit on the nodes, each by itself, if nothing else ran there."""
    from kubernetes.utils.quantity import parse_quantity

    nodes = [
        {name: float(parse_quantity(amount)) for name, amount in node["status"].get("allocatable", {}).items()}
        for node in cluster.items("/api/v1/nodes")
        if not node.get("spec", {}).get("unschedulable")
    ]
    for step, job in cluster.jobs.items():
        if job.ray != "job":
            yield "ok", f"{step} runs in its own pod with this profile", ""
            continue
        asked = {"cpu": float(job.worker_cpus), "memory": job.worker_memory_gib * 2**30}
        asked |= {job.gpu_resource: float(job.gpus_per_worker)} if job.gpus_per_worker else {}
        room = sum(int(min(node.get(name, 0) // amount for name, amount in asked.items())) for node in nodes)
        gpus = f", {job.gpus_per_worker} {job.gpu_resource}" if job.gpus_per_worker else ""
        each = f"{job.worker_cpus} CPUs, {job.worker_memory_gib:g} GiB{gpus}"
        said = f"{step} wants {job.min_workers} workers of {each}: the nodes have room for {room}"
        fix = f"add nodes, or lower cluster.{step}.min_workers"
        if room >= job.min_workers:
            yield "ok", said, ""
        elif room:
            yield "unknown", said, f"{fix}; where nodes are added as they are needed, this is well"
        else:
            yield "missing", said, f"{fix} or what each asks for"


def _storage(cluster: _Cluster) -> Told:
    key = "storageclass.kubernetes.io/is-default-class"
    classes = cluster.items("/apis/storage.k8s.io/v1/storageclasses")
    default = [c["metadata"]["name"] for c in classes if (c["metadata"].get("annotations") or {}).get(key) == "true"]
    if default:
        yield "ok", f"default class {default[0]}", ""
    else:
        what = f"no default storage class (there are {len(classes)}): components/postgres waits for its volume"
        yield "optional", what, "mark one as default, or name one in your overlay"


def _component(cluster: _Cluster, name: str) -> Told:
    wanted, version = COMPONENTS[name]
    crd = _crd(cluster, wanted)
    if crd is None:
        yield "optional", f"no {wanted}: infra/components/{name} can't be applied", ""
    elif version not in _served(crd):
        served = ", ".join(_served(crd))
        yield (
            "optional",
            f"{wanted} serves {served}, infra/components/{name} is {version}",
            "update it, or patch apiVersion",
        )
    else:
        yield "ok", f"{wanted} {version}", ""


CHECKS: dict[str, Callable[[_Cluster], Told]] = {
    "Kubernetes": _version,
    "KubeRay's CRDs": _kuberay_crds,
    "KubeRay's operator": _operator,
    "namespace": _namespace,
    "accounts": _accounts,
    "network policies": _policies,
    "operator reaches Ray": _operator_reaches_ray,
    "credentials": _secret,
    "named in the configuration": _named,
    "components": _applied,
    "object store": _store,
    "ledger": _ledger,
    "pipelines": _kfp,
    "GPUs": _gpus,
    "room": _room,
    "storage": _storage,
    **{name: partial(_component, name=name) for name in COMPONENTS},
}


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector of Kubernetes matches `labels`."""
    for rule in selector.get("matchExpressions") or []:
        key, values = rule["key"], rule.get("values") or []
        held = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }[rule["operator"]]
        if not held:
            return False
    return (selector.get("matchLabels") or {}).items() <= dict(labels).items()
