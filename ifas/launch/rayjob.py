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

from ifas.core.config import RayConfig, RunConfig, as_overrides
from ifas.core.errors import ConfigError, LaunchError, unknown_key
from ifas.core.files import sha256_json
from ifas.core.progress import EVENTS_ENV
from ifas.launch import pods
from ifas.launch.capacity import places_of_actors

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

#: GCS, dashboard and job API, Ray client. The last two run code without asking who calls: see the network policy.
HEAD_PORTS = {"gcs": 6379, "dashboard": 8265, "client": 10001}

HASH_ANNOTATION = "ifas.dev/spec-sha256"

#: CPUs and GiB of the pod that submits: it sends one request and prints the job's log.
SUBMITTER = (0.25, 0.5)


@dataclass(frozen=True, kw_only=True)
class RayJobSpec:
    """What runs and where; `size` says on how much, and for how long."""

    step: str
    run_id: str
    image: str
    config: str = field(metadata={"about": "profile, or path of a YAML file in the image"})
    inputs: Mapping[str, str] = field(metadata={"about": "input name -> s3:// URI, or a path on the shared volume"})
    outputs: Mapping[str, str] = field(metadata={"about": "output name -> the same"})
    input_sha256: Mapping[str, str] = field(
        default_factory=dict, metadata={"about": "input name -> its content's hash"}
    )
    overrides: tuple[str, ...] = field(default=(), metadata={"about": "section.key=value, as for --set"})
    size: RayConfig = field(default_factory=RayConfig)
    namespace: str = "ifas"
    shared: tuple[str, str] | None = field(
        default=None, metadata={"about": "claim of a shared volume, and the folder where every pod mounts it"}
    )
    submission_mode: str = "K8sJobMode"
    submitter_backoff_limit: int = field(default=2, metadata={"about": "new submitter pods; K8sJobMode only"})
    service_account: str = "ifas-ray"
    autoscaler_account: str = field(default="ifas-ray-autoscaler", metadata={"about": "of a head with an autoscaler"})
    config_map: str = "ifas-settings"
    secret: str = "ifas-credentials"  # noqa: S105  (the name of a Secret)
    secret_keys: tuple[str, ...] = S3_SECRET_KEYS


def describe(
    step: str,
    config: RunConfig,
    *,
    run_id: str,
    image: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    input_sha256: Mapping[str, str] | None = None,
) -> RayJobSpec:
    """The job of a step as the configuration has it, with the whole configuration in its command.

    Raises:
        ConfigError: no RayJob runs this step.
    """
    if step not in STEPS:
        raise unknown_key("RayJob step", step, STEPS)
    size: RayConfig = getattr(config.cluster, step)
    profile, overrides = as_overrides(config)
    cluster = config.cluster
    return RayJobSpec(
        step=step,
        run_id=run_id,
        image=size.image or image,
        config=profile,
        overrides=tuple(overrides),
        inputs=inputs,
        outputs=outputs,
        input_sha256=input_sha256 or {},
        size=size,
        namespace=cluster.namespace,
        shared=(cluster.storage_claim, cluster.storage) if cluster.storage_claim else None,
    )


def kept(config: RunConfig) -> RunConfig:
    """`config` with checkpoints on the shared volume, where there is one: a pod's disk is lost with the pod.

    And with an actor for each worker that captions, as far as they fit, unless `caption.actors` asks for more than one.
    """
    actors = min(config.cluster.caption.max_workers, places_of_actors(config))
    if config.caption.actors == 1 < actors:
        caption = config.caption.model_copy(update={"actors": actors})
        config = config.model_copy(update={"caption": caption})
    if config.train.storage or not config.cluster.storage_claim:
        return config
    train = config.train.model_copy(update={"storage": f"{config.cluster.storage.rstrip('/')}/checkpoints"})
    return config.model_copy(update={"train": train})


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
    tables = (("--input", spec.inputs), ("--input-sha256", spec.input_sha256), ("--output", spec.outputs))
    for flag, table in tables:
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
    # Pods get no app.kubernetes.io/name: KubeRay sets its own, by which the service of the job's head selects.
    labels = {
        "app.kubernetes.io/component": "ray",
        "app.kubernetes.io/managed-by": "ifas",
        "ifas.dev/job": name,
        "ifas.dev/step": spec.step,
    }
    body: dict[str, Any] = {
        "entrypoint": entrypoint(spec),
        "submissionMode": spec.submission_mode,
        "backoffLimit": spec.size.backoff_limit,
        "activeDeadlineSeconds": spec.size.active_deadline_s,
        "preRunningDeadlineSeconds": spec.size.pre_running_deadline_s,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": spec.size.ttl_s,
        "rayClusterSpec": {
            "rayVersion": RAY_VERSION,
            **(_autoscaler() if _scales(spec) else {}),
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
            "labels": {
                "app.kubernetes.io/name": "ifas",
                **labels,
                **({"kueue.x-k8s.io/queue-name": spec.size.queue} if spec.size.queue else {}),
            },
            "annotations": {"ifas.dev/run-id": spec.run_id, HASH_ANNOTATION: sha256_json(body)},
        },
        "spec": body,
    }


def _head(spec: RayJobSpec, labels: Mapping[str, str]) -> dict[str, Any]:
    size, sidecar = spec.size, spec.submission_mode == "SidecarMode"
    shm_gib = min(size.shm_gib, size.head_memory_gib / 4)
    template = pods.ray_pod(
        container="ray-head",
        resources=pods.resources(cpus=size.head_cpus, memory_gib=size.head_memory_gib),
        ports=HEAD_PORTS,
        shm_gib=shm_gib,
        restart_policy="Never" if sidecar else "",
        **_common(spec, labels),
    )
    # The driver's events go into the job's log, where whoever launched the job reads them.
    template["spec"]["containers"][0]["env"].insert(0, {"name": EVENTS_ENV, "value": "/dev/stdout"})
    if _scales(spec):
        # KubeRay binds a role to the head's account: workers, and other jobs, must have another.
        template["spec"]["serviceAccountName"] = spec.autoscaler_account
        template["spec"]["automountServiceAccountToken"] = True
        # The network policy lets these heads, and no other pod of Ray, reach the API server.
        template["metadata"]["labels"]["ifas.dev/autoscaler"] = "true"
    return {
        "rayStartParams": {
            "dashboard-host": "0.0.0.0",  # noqa: S104  (reached by the submitter; the network policy closes it)
            # None for tasks and actors: a rank there would wait for a GPU that the head does not have.
            "num-cpus": "0",
            "num-gpus": "0",
            "object-store-memory": _object_store(shm_gib),
        },
        "template": template,
    }


def _workers(spec: RayJobSpec, labels: Mapping[str, str]) -> dict[str, Any]:
    size = spec.size
    tolerations = (*(size.tolerations if size.gpus_per_worker else ()), *size.spot_tolerations)
    return {
        "groupName": "gpu" if size.gpus_per_worker else "cpu",
        "replicas": size.min_workers if _scales(spec) else size.max_workers,
        "minReplicas": size.min_workers,
        "maxReplicas": size.max_workers,
        "rayStartParams": {
            "num-cpus": str(size.worker_cpus),
            "num-gpus": str(size.gpus_per_worker),
            "object-store-memory": _object_store(size.shm_gib),
        },
        "template": pods.ray_pod(
            container="ray-worker",
            resources=pods.resources(
                cpus=size.worker_cpus,
                memory_gib=size.worker_memory_gib,
                gpus=size.gpus_per_worker,
                gpu_resource=size.gpu_resource,
            ),
            ports={},
            shm_gib=size.shm_gib,
            node_selector=size.node_selector if size.gpus_per_worker else None,
            tolerations=[{k: v for k, v in one.model_dump().items() if v} for one in tolerations],
            **_common(spec, labels),
        ),
    }


def _submitter(spec: RayJobSpec, labels: Mapping[str, str]) -> dict[str, Any]:
    cpus, memory_gib = SUBMITTER
    template = pods.ray_pod(
        container="ray-job-submitter",
        resources=pods.resources(cpus=cpus, memory_gib=memory_gib),
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
        "env": pods.env({**pods.FIXED_ENV, pods.IMAGE_ENV: spec.image}, spec.secret, spec.secret_keys),
        "config_map": spec.config_map,
        "scratch_gib": spec.size.scratch_gib,
        "priority_class": spec.size.priority_class,
        "shared": spec.shared,
    }


def _scales(spec: RayJobSpec) -> bool:
    return spec.size.min_workers < spec.size.max_workers


def _autoscaler() -> dict[str, Any]:
    """Ray's autoscaler: a container that KubeRay adds to the head pod, which changes the number of workers."""
    return {
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "resources": pods.resources(cpus=0.5, memory_gib=0.5),
            "securityContext": pods.container_security(),
        },
    }


def _object_store(shm_gib: float) -> str:
    # Nine tenths of /dev/shm: Ray falls back to slow files when its store does not fit.
    return str(int(shm_gib * 2**30 * 9 / 10))


def _check(spec: RayJobSpec) -> None:
    if spec.step not in STEPS:
        raise unknown_key("RayJob step", spec.step, STEPS)
    if spec.submission_mode not in SUBMISSION_MODES:
        raise unknown_key("submissionMode", spec.submission_mode, SUBMISSION_MODES)
    mounted = f"{spec.shared[1].rstrip('/')}/" if spec.shared else None
    local = [
        uri
        for uri in (*spec.inputs.values(), *spec.outputs.values())
        if not uri.startswith("s3://") and not (mounted and uri.startswith(mounted))
    ]
    if local:
        raise LaunchError(
            f"a RayJob can't reach the local path(s) {', '.join(local)}",
            "give s3:// URIs, or paths on the volume of cluster.storage_claim, which every pod can read and write",
        )
    if not spec.image or not spec.run_id:
        raise ConfigError(
            "a RayJob needs an image and a run id",
            "name the image by cluster.image, --image or IFAS_IMAGE, and give --run-id",
        )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
