"""Explains what a RayJob waits for and why it failed, from its pods, their conditions and their logs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ifas.core.errors import LaunchError

LOG_LINES = 20


def waiting_for(api: Any, namespace: str, status: Mapping[str, Any]) -> str:
    """The scheduler's message about the first pod without a node, e.g. "GPUs: 0/3 nodes are available"; else empty."""
    if status.get("jobDeploymentStatus") == "Suspended":
        return "quota (the job is suspended by its queue)"
    cluster = status.get("rayClusterName")
    if not cluster:
        return ""
    for pod in _pods(api, namespace, f"ray.io/cluster={cluster}"):
        for condition in pod.get("status", {}).get("conditions") or []:
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                message = str(condition.get("message", "")).split(". ")[0]
                return f"{'GPUs' if 'gpu' in message.lower() else 'a node'}: {message}"
    return ""


def failure(api: Any, namespace: str, name: str, status: Mapping[str, Any]) -> LaunchError:
    """The error for a job that ended without success: reason, pods that were killed, last lines of its log."""
    reason = status.get("reason") or status.get("jobStatus") or status.get("jobDeploymentStatus")
    said = str(status.get("message", "")).strip()
    parts = [f"RayJob {name} failed ({reason})" + (f": {said}" if said else "")]
    cluster = status.get("rayClusterName", "")
    killed = _killed(_pods(api, namespace, f"ray.io/cluster={cluster}")) if cluster else []
    parts += killed
    log = _log(api, namespace, name, cluster)
    if log:
        parts.append(f"last lines of its log:\n{log}")
    if any("OOMKilled" in line for line in killed):
        fix = "raise worker_memory_gib or head_memory_gib, or lower the batch"
    elif reason == "DeadlineExceeded":
        fix = "raise active_deadline_s; training goes on from its last checkpoint"
    else:
        fix = f"see all of it with: kubectl -n {namespace} describe rayjob {name}"
    return LaunchError("\n".join(parts), fix)


def refusal(error: Any, method: str, name: str, namespace: str) -> LaunchError:
    """The error for an answer of the API server that is not a success."""
    said = _message(error)
    if error.status in (401, 403):
        return LaunchError(
            f"the cluster does not allow {method} on RayJob {name} in namespace {namespace}: {said}",
            "use the service account ifas-pipeline-runner of infra/base, or ask for its role",
        )
    if no_such_kind(error):
        return LaunchError("the cluster knows no RayJob", "install the KubeRay operator with its CRDs")
    return LaunchError(f"{method} of RayJob {name} was refused ({error.status}): {said}", "correct the named field")


def no_such_kind(error: Any) -> bool:
    """Whether a 404 means that the CRD is missing, not the object."""
    return error.status == 404 and "could not find the requested resource" in _message(error)


def _message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)


def _pods(api: Any, namespace: str, selector: str) -> list[dict[str, Any]]:
    found = _read(api, f"/api/v1/namespaces/{namespace}/pods", [("labelSelector", selector)], "object")
    return list(found.get("items", [])) if isinstance(found, dict) else []


def _killed(pods: list[dict[str, Any]]) -> list[str]:
    lines = []
    for pod in pods:
        for container in pod.get("status", {}).get("containerStatuses") or []:
            for state in (container.get("state") or {}, container.get("lastState") or {}):
                ended = state.get("terminated") or {}
                if ended.get("exitCode"):
                    lines.append(
                        f"pod {pod['metadata']['name']}: {ended.get('reason', 'Error')} (exit {ended['exitCode']})"
                    )
    return list(dict.fromkeys(lines))


def _log(api: Any, namespace: str, name: str, cluster: str) -> str:
    # K8sJobMode: the submitter's own pod. SidecarMode: a container of the head pod.
    pods = _pods(api, namespace, f"job-name={name}")
    if not pods and cluster:
        pods = _pods(api, namespace, f"ray.io/cluster={cluster},ray.io/node-type=head")
    if not pods:
        return ""
    newest = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    query = [("container", "ray-job-submitter"), ("tailLines", str(LOG_LINES))]
    path = f"/api/v1/namespaces/{namespace}/pods/{newest['metadata']['name']}/log"
    text = _read(api, path, query, "str")
    return text.strip() if isinstance(text, str) else ""


def _read(api: Any, path: str, query: list[tuple[str, str]], kind: str) -> Any:
    """A GET for an explanation only: None if it is refused or fails."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    headers = {"Accept": "application/json, */*"}
    try:
        return api.call_api(
            path,
            "GET",
            {},
            query,
            headers,
            response_type=kind,
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _request_timeout=30,
        )
    except (ApiException, HTTPError, OSError):
        return None
