"""Builds the RayJob of a captioning or training step, as a pure function of its description.

KubeRay's operator checks more than its CRD's schema does (it accepts `submissionMode: Foo` and lets the job hang), so
those checks are made here, before anything is sent.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ifas.core.errors import LaunchError, unknown_key
from ifas.core.files import sha256_json
from ifas.launch import pods

STEPS = ("caption", "train")

#: How the entrypoint reaches the cluster -> what this means.
SUBMISSION_MODES: dict[str, str] = {
    "K8sJobMode": "a submitter pod of its own, whose security context is set here",
    "SidecarMode": "a container that the operator adds to the head pod; it has no security context, so a namespace "
    "that enforces Pod Security restricted refuses it",
}

#: KubeRay refuses longer names: it appends suffixes to them.
MAX_NAME = 47

#: Version of Ray in the image; KubeRay chooses its probes and flags by it.
RAY_VERSION = "2.60.0"

S3_SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

GPU_TOLERATION: Mapping[str, str] = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}

#: GCS, dashboard and job API, Ray client. The last two run code without asking who calls: see the network policy.
HEAD_PORTS = {"gcs": 6379, "dashboard": 8265, "client": 10001}

HASH_ANNOTATION = "ifas.dev/spec-sha256"


@dataclass(frozen=True, kw_only=True)
class RayJobSpec:
    """What runs, where, and for how long. Sizes in GiB, times in seconds."""

    step: str
    run_id: str
    image: str
    config: str = field(metadata={"about": "profile, or path of a YAML file in the image"})
    inputs: Mapping[str, str] = field(metadata={"about": "input name -> s3:// URI"})
    outputs: Mapping[str, str] = field(metadata={"about": "output name -> s3:// URI"})
    overrides: tuple[str, ...] = field(default=(), metadata={"about": "section.key=value, as for --set"})
    namespace: str = "ifas"
    submission_mode: str = "K8sJobMode"
    backoff_limit: int = field(default=1, metadata={"about": "new clusters after a failure"})
    submitter_backoff_limit: int = field(default=2, metadata={"about": "new submitter pods; K8sJobMode only"})
    active_deadline_s: int = 24 * 3600
    pre_running_deadline_s: int = field(default=3600, metadata={"about": "longest wait for nodes, images, quota"})
    ttl_s: int = field(default=600, metadata={"about": "how long the cluster stays for a look after the end"})
    workers: int = 2
    gpus_per_worker: int = 1
    gpu_resource: str = "nvidia.com/gpu"
    head_cpus: int = 2
    head_memory_gib: int = 8
    worker_cpus: int = 8
    worker_memory_gib: int = 32
    shm_gib: int = 4
    scratch_gib: int = 100
    # Both only for workers with GPUs.
    node_selector: Mapping[str, str] = field(default_factory=lambda: {"ifas.dev/accelerator": "gpu"})
    tolerations: tuple[Mapping[str, str], ...] = (GPU_TOLERATION,)
    priority_class: str = ""
    queue: str = field(default="", metadata={"about": "Kueue local queue; empty: not queued"})
    service_account: str = "ifas-ray"
    config_map: str = "ifas-settings"
    secret: str = "ifas-credentials"  # noqa: S105  (the name of a Secret)
    secret_keys: tuple[str, ...] = S3_SECRET_KEYS


def job_name(step: str, run_id: str) -> str:
    """Name of the step's RayJob in a run: a DNS-1035 label of at most 47 characters, the same on every call."""
    name = f"ifas-{step}-{_slug(run_id)}"
    if _slug(run_id) == run_id and len(name) <= MAX_NAME:
        return name
    # Shortened or changed run ids must not collide, so a hash of the whole id is appended.
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME - 9].rstrip('-')}-{digest}"


def entrypoint(spec: RayJobSpec) -> str:
    """The command that runs on the cluster, quoted for the one shell that parses it there.

    Raises:
        LaunchError: an argument holds `$(`, which Kubernetes would expand, or a control character.
    """
    words = ["ifas", "step", spec.step, "--config", spec.config, "--run-id", spec.run_id]
    for item in spec.overrides:
        words += ["--set", item]
    for flag, table in (("--input", spec.inputs), ("--output", spec.outputs)):
        for name, uri in sorted(table.items()):
            words += [flag, f"{name}={uri}"]
    for word in words:
        # KubeRay puts the command into a container's arguments, where the kubelet replaces $(NAME) in any quotes.
        if "$(" in word or not word.isprintable():
            raise LaunchError(
                f"RayJob argument {word!r} holds $( or a control character",
                "leave them out of names, URIs and overrides",
            )
    return shlex.join(words)


def build_rayjob(spec: RayJobSpec) -> dict[str, Any]:
    """The `ray.io/v1` RayJob for a step.

    Raises:
        LaunchError: a value that the operator would refuse, or with which the job would hang.
        ConfigError: unknown step or submission mode.
    """
    _check(spec)
    name = job_name(spec.step, spec.run_id)
    labels = {
        "app.kubernetes.io/name": "ifas",
        "app.kubernetes.io/component": "ray",
        "app.kubernetes.io/managed-by": "ifas",
        "ifas.dev/job": name,
        "ifas.dev/step": spec.step,
    }
    body: dict[str, Any] = {
        "entrypoint": entrypoint(spec),
        "submissionMode": spec.submission_mode,
        "backoffLimit": spec.backoff_limit,
        "activeDeadlineSeconds": spec.active_deadline_s,
        "preRunningDeadlineSeconds": spec.pre_running_deadline_s,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": spec.ttl_s,
        "rayClusterSpec": {
            "rayVersion": RAY_VERSION,
            "headGroupSpec": _head(spec, labels),
            "workerGroupSpecs": [_workers(spec, labels)],
        },
    }
    if spec.submission_mode == "K8sJobMode":
        body["submitterConfig"] = {"backoffLimit": spec.submitter_backoff_limit}
        body["submitterPodTemplate"] = _submitter(spec, labels)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": name,
            "namespace": spec.namespace,
            "labels": {**labels, **({"kueue.x-k8s.io/queue-name": spec.queue} if spec.queue else {})},
            "annotations": {"ifas.dev/run-id": spec.run_id, HASH_ANNOTATION: sha256_json(body)},
        },
        "spec": body,
    }


def _head(spec: RayJobSpec, labels: Mapping[str, str]) -> dict[str, Any]:
    sidecar = spec.submission_mode == "SidecarMode"
    return {
        "rayStartParams": {
            "dashboard-host": "0.0.0.0",  # noqa: S104  (reached by the submitter; the network policy closes it)
            "num-cpus": str(spec.head_cpus),
            "num-gpus": "0",
            "object-store-memory": _object_store(spec),
        },
        "template": pods.ray_pod(
            container="ray-head",
            resources=pods.resources(cpus=spec.head_cpus, memory_gib=spec.head_memory_gib),
            ports=HEAD_PORTS,
            shm_gib=spec.shm_gib,
            restart_policy="Never" if sidecar else "",
            **_common(spec, labels),
        ),
    }


def _workers(spec: RayJobSpec, labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "groupName": "gpu" if spec.gpus_per_worker else "cpu",
        "replicas": spec.workers,
        "minReplicas": spec.workers,
        "maxReplicas": spec.workers,
        "rayStartParams": {
            "num-cpus": str(spec.worker_cpus),
            "num-gpus": str(spec.gpus_per_worker),
            "object-store-memory": _object_store(spec),
        },
        "template": pods.ray_pod(
            container="ray-worker",
            resources=pods.resources(
                cpus=spec.worker_cpus,
                memory_gib=spec.worker_memory_gib,
                gpus=spec.gpus_per_worker,
                gpu_resource=spec.gpu_resource,
            ),
            ports={},
            shm_gib=spec.shm_gib,
            node_selector=spec.node_selector if spec.gpus_per_worker else None,
            tolerations=spec.tolerations if spec.gpus_per_worker else (),
            **_common(spec, labels),
        ),
    }


def _submitter(spec: RayJobSpec, labels: Mapping[str, str]) -> dict[str, Any]:
    template = pods.ray_pod(
        container="ray-job-submitter",
        resources=pods.resources(cpus=1, memory_gib=1),
        ports={},
        shm_gib=0,
        restart_policy="Never",
        **{**_common(spec, labels), "scratch_gib": 1},
    )
    # It only talks to the job API: it needs no credentials of the object store.
    template["spec"]["containers"][0]["env"] = pods.env(pods.FIXED_ENV, "", ())
    return template


def _common(spec: RayJobSpec, labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "image": spec.image,
        "labels": labels,
        "service_account": spec.service_account,
        "env": pods.env({**pods.FIXED_ENV, "IFAS_IMAGE": spec.image}, spec.secret, spec.secret_keys),
        "config_map": spec.config_map,
        "scratch_gib": spec.scratch_gib,
        "priority_class": spec.priority_class,
    }


def _object_store(spec: RayJobSpec) -> str:
    # Nine tenths of /dev/shm: Ray falls back to slow files when its store does not fit.
    return str(spec.shm_gib * 2**30 * 9 // 10)


def _check(spec: RayJobSpec) -> None:
    if spec.step not in STEPS:
        raise unknown_key("RayJob step", spec.step, STEPS)
    if spec.submission_mode not in SUBMISSION_MODES:
        raise unknown_key("submissionMode", spec.submission_mode, SUBMISSION_MODES)
    positive = ("active_deadline_s", "pre_running_deadline_s", "workers", "head_cpus", "worker_cpus", "shm_gib")
    for name in (*positive, "scratch_gib"):
        if getattr(spec, name) < 1:
            raise LaunchError(f"{name} is {getattr(spec, name)}", f"set {name} to 1 or more")
    for name in ("backoff_limit", "submitter_backoff_limit", "ttl_s", "gpus_per_worker"):
        if getattr(spec, name) < 0:
            raise LaunchError(f"{name} is {getattr(spec, name)}", f"set {name} to 0 or more")
    if spec.shm_gib >= min(spec.head_memory_gib, spec.worker_memory_gib):
        raise LaunchError(
            f"shared memory of {spec.shm_gib} GiB leaves no memory of {spec.head_memory_gib} GiB (head) and "
            f"{spec.worker_memory_gib} GiB (worker)",
            "lower shm_gib or raise the memory: what lies in /dev/shm counts towards the limit",
        )
    local = [uri for uri in (*spec.inputs.values(), *spec.outputs.values()) if not uri.startswith("s3://")]
    if local:
        raise LaunchError(
            f"a RayJob can't reach the local path(s) {', '.join(local)}",
            "give s3:// URIs, which every pod of the cluster can read and write",
        )
    if not spec.image or not spec.run_id:
        raise LaunchError("a RayJob needs an image and a run id", "set both")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
