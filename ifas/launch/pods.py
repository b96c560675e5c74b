"""Templates of Ray pods that are admitted by a namespace with Pod Security *restricted*.

KubeRay adds no security context of its own, so every container gets one here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ifas.core.config import ClusterConfig

#: Numeric, as `runAsNonRoot` can't be checked against a user name. The image's USER is the same.
USER = 10001

POD_SECURITY: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}

CONTAINER_SECURITY: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}

#: Not secret, the same in every pod. The root file system is read-only: what is written goes to the volumes.
FIXED_ENV: dict[str, str] = {
    "HOME": "/tmp",  # noqa: S108  (a volume of the pod's own)
    "IFAS_HOME": "/scratch/ifas",
    "OMP_WAIT_POLICY": "PASSIVE",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "BENTOML_DO_NOT_TRACK": "True",
}

#: In every pod: its own image.
IMAGE_ENV = "IFAS_IMAGE"


def image_of(cluster: ClusterConfig) -> str:
    """The image of every pod: `cluster.image`, else env IFAS_IMAGE of this process; empty where there is neither."""
    return cluster.image or os.environ.get(IMAGE_ENV, "")


def env(fixed: Mapping[str, str], secret: str, secret_keys: Sequence[str]) -> list[dict[str, Any]]:
    """`env` of a container: fixed values, and secrets by reference only."""
    plain = [{"name": name, "value": value} for name, value in sorted(fixed.items())]
    return plain + [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}} for key in sorted(secret_keys)
    ]


def container_security() -> dict[str, Any]:
    """A security context that *restricted* admits; a new object each time."""
    return {**CONTAINER_SECURITY, "capabilities": {"drop": ["ALL"]}}


def resources(*, cpus: float, memory_gib: float, gpus: int = 0, gpu_resource: str = "nvidia.com/gpu") -> dict[str, Any]:
    """Requests equal to limits, so that the pod is among the last to be evicted."""
    amount = {"cpu": f"{cpus:g}", "memory": f"{memory_gib:g}Gi"}
    if gpus:
        amount[gpu_resource] = str(gpus)
    return {"requests": dict(amount), "limits": dict(amount)}


def ray_pod(
    *,
    container: str,
    image: str,
    labels: Mapping[str, str],
    service_account: str,
    env: Sequence[Mapping[str, Any]],
    config_map: str,
    resources: Mapping[str, Any],
    ports: Mapping[str, int],
    shm_gib: float,
    scratch_gib: int,
    shared: tuple[str, str] | None = None,
    node_selector: Mapping[str, str] | None = None,
    tolerations: Sequence[Mapping[str, str]] = (),
    priority_class: str = "",
    restart_policy: str = "",
) -> dict[str, Any]:
    """One pod template of one container, with memory for /dev/shm where `shm_gib` is positive.

    Args:
        shared: claim of a volume that all pods write to, and where it is mounted.
    """
    volumes: list[dict[str, Any]] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "scratch", "emptyDir": {"sizeLimit": f"{scratch_gib}Gi"}},
    ]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "scratch", "mountPath": "/scratch"}]  # noqa: S108
    if shm_gib:
        # Counts towards the container's memory limit. Without it /dev/shm is 64 MiB, too small for Ray's objects.
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{shm_gib:g}Gi"}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108
    if shared:
        claim, folder = shared
        volumes.append({"name": "shared", "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": "shared", "mountPath": folder})
    only: dict[str, Any] = {
        "name": container,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "workingDir": "/scratch",
        "envFrom": [{"configMapRef": {"name": config_map}}],
        "env": [dict(item) for item in env],
        "resources": dict(resources),
        "securityContext": container_security(),
        "volumeMounts": mounts,
    }
    if ports:
        only["ports"] = [{"name": name, "containerPort": number} for name, number in ports.items()]
    spec: dict[str, Any] = {
        "serviceAccountName": service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {**POD_SECURITY, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [only],
        "volumes": volumes,
    }
    if restart_policy:
        spec["restartPolicy"] = restart_policy
    if node_selector:
        spec["nodeSelector"] = dict(node_selector)
    if tolerations:
        spec["tolerations"] = [dict(item) for item in tolerations]
    if priority_class:
        spec["priorityClassName"] = priority_class
    return {"metadata": {"labels": dict(labels)}, "spec": spec}
