"""Tells what a RayJob waits for and why it failed, from its pods, their events and their logs.

KubeRay's own status says "Initializing" or "Running" while an image can't be pulled, a quota is used up, a Secret is
missing or no node is large enough. Those are facts of pods, and where a pod could not even be made, of events.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ifas.core.errors import LaunchError

LOG_LINES = 20
LONGEST = 400

#: A GET of (path, query, "object" or "str"), or None where it failed: an explanation must not end a job.
Read = Callable[[str, list[tuple[str, str]], str], Any]

#: Why a container does not start: its reason -> kind of cause.
NOT_STARTING = {
    "ErrImagePull": "image",
    "ImagePullBackOff": "image",
    "InvalidImageName": "image",
    "ErrImageNeverPull": "image",
    "ImageInspectError": "image",
    "CreateContainerConfigError": "setting",
    "CreateContainerError": "start",
    "RunContainerError": "start",
    "CrashLoopBackOff": "crash",
}

#: Event about a pod that could not be made -> whose pod it is. Job's controller says FailedCreate for the submitter.
NOT_MADE = {
    "FailedToCreateRayCluster": "head",
    "FailedToCreateHeadPod": "head",
    "FailedToCreateWorkerPod": "worker",
    "FailedToCreateRayJobSubmitter": "submitter",
    "FailedCreate": "submitter",
}

FIXES = {
    "node": "free nodes or add some, or ask for less in the section `cluster` of the configuration",
    "image": "push the image, or give the service account of Ray's pods an imagePullSecret, then start again",
    "setting": "make the missing Secret or ConfigMap: infra/README.md lists their keys",
    "quota": "ask for less in the section `cluster` of the configuration, or raise the namespace's ResourceQuota",
    "security": "the namespace's Pod Security level refuses these pods: `ifas cluster check` compares it",
    "memory": "raise the memory of head or workers in the section `cluster` of the configuration, or lower the batch",
    "operator": "KubeRay's operator can't reach port 8265 of the head: its namespace needs the label "
    "ifas.dev/kuberay-operator=true; see `ifas cluster check`",
    "deadline": "raise the deadline in the section `cluster`; the same job then goes on from its last checkpoint, and "
    "with train.storage another run's does, too",
}


@dataclass(frozen=True)
class Cause:
    """Why a job does not get on.

    Attributes:
        kind: a key of FIXES, or another word.
        text: one line, with the time since when.
        key: the same for two lines that tell the same.
    """

    kind: str
    text: str
    key: str


class Diagnosis:
    """What one RayJob waits for. It remembers what killed pods, since KubeRay soon deletes those pods."""

    def __init__(self, read: Read, namespace: str, name: str) -> None:
        self.read = read
        self.namespace = namespace
        self.name = name
        self.cause: Cause | None = None
        self.killed: dict[str, str] = {}

    def look(self, job: Mapping[str, Any]) -> Cause | None:
        """What `job`, as the API server has it, waits for now; None where nothing holds it up."""
        status = job.get("status") or {}
        pods = self._pods(status)
        for pod in pods:
            self.killed.update(_killed(pod))
        self.cause = self._suspended(job) or _first(
            _unscheduled(pods), self._not_starting(pods), self._not_made(job, pods), self._preparing(pods)
        )
        return self.cause

    def failure(self, job: Mapping[str, Any]) -> LaunchError:
        """The error for a job that ended without success: reason, cause, killed pods, last lines of its log."""
        status = job.get("status") or {}
        before = self.cause
        self.look(job)
        cause = self.cause or before
        reason = str(status.get("reason") or status.get("jobStatus") or status.get("jobDeploymentStatus"))
        said = _one_line(status.get("message", ""))
        parts = [f"RayJob {self.name} failed ({reason})" + (f": {said}" if said else "")]
        if cause is not None and status.get("jobStatus") not in ("FAILED", "STOPPED"):
            parts[0] += f"; it was {cause.text}"
        self.killed.update(self._replaced(status))
        parts += list(dict.fromkeys(self.killed.values()))
        log = self._log(status)
        if log:
            parts.append(f"last lines of its log:\n{log}")
        return LaunchError("\n".join(parts), self._fix(reason, cause))

    def _fix(self, reason: str, cause: Cause | None) -> str:
        if any("OOMKilled" in line for line in self.killed.values()):
            return FIXES["memory"]
        if reason == "JobDeploymentStatusTransitionGracePeriodExceeded":
            return FIXES["operator"]
        if cause is not None and cause.kind in FIXES and reason != "AppFailed":
            return FIXES[cause.kind]
        if reason == "DeadlineExceeded":
            return FIXES["deadline"]
        return f"see all of it with: kubectl -n {self.namespace} describe rayjob {self.name}"

    # What is read.

    def _pods(self, status: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Pods of the job, head first, without those of an earlier cluster of it."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        found = self.read(path, [("labelSelector", f"ifas.dev/job={self.name}")], "object")
        pods = list(found.get("items", [])) if isinstance(found, dict) else []
        cluster = status.get("rayClusterName")
        kept = [pod for pod in pods if _labels(pod).get("ray.io/cluster", cluster) == cluster]
        order = ("head", "submitter", "worker")
        return sorted(kept, key=lambda pod: (order.index(_role(pod)), pod["metadata"]["name"]))

    def _events(self, *fields: tuple[str, str]) -> list[dict[str, Any]]:
        """Events, oldest first; `fields` are of the object that they are about."""
        selector = ",".join(f"involvedObject.{name}={value}" for name, value in fields)
        found = self.read(f"/api/v1/namespaces/{self.namespace}/events", [("fieldSelector", selector)], "object")
        events = list(found.get("items", [])) if isinstance(found, dict) else []
        return sorted(events, key=_when)

    def _log(self, status: Mapping[str, Any]) -> str:
        # K8sJobMode: the submitter's own pod. SidecarMode: a container of the head pod.
        pods = self._pods(status)
        able = [p for p in pods if _role(p) == "submitter"] or [p for p in pods if _role(p) == "head"]
        if not able:
            return ""
        newest = max(able, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
        query = [("container", "ray-job-submitter"), ("tailLines", str(LOG_LINES))]
        path = f"/api/v1/namespaces/{self.namespace}/pods/{newest['metadata']['name']}/log"
        text = self.read(path, query, "str")
        return text.strip() if isinstance(text, str) else ""

    # What is concluded.

    def _suspended(self, job: Mapping[str, Any]) -> Cause | None:
        if (job.get("status") or {}).get("jobDeploymentStatus") not in ("Suspended", "Suspending"):
            return None
        queue = _labels(job).get("kueue.x-k8s.io/queue-name", "")
        # Kueue says why on its Workload, whose name begins with the job's.
        events = self._events(("kind", "Workload"))
        mine = [e for e in events if str(e["involvedObject"]["name"]).startswith(f"rayjob-{self.name}-")]
        why = f": {_one_line(mine[-1].get('message', ''))}" if mine else ""
        text = f"waiting for quota in the queue {queue or '(none is named)'}{why}"
        return Cause("queue", text, f"queue:{_plain(text)}")

    def _not_starting(self, pods: Sequence[Mapping[str, Any]]) -> Cause | None:
        for pod in pods:
            for container in _containers(pod):
                waiting = (container.get("state") or {}).get("waiting") or {}
                kind = NOT_STARTING.get(str(waiting.get("reason")))
                if not kind:
                    continue
                said = _one_line(waiting.get("message", "")) or str(waiting["reason"])
                since = _clock(pod.get("status", {}).get("startTime") or pod["metadata"].get("creationTimestamp"))
                if kind == "image":
                    image = container.get("image", "")
                    # ErrImagePull and ImagePullBackOff take turns: one line for both.
                    return Cause(kind, f"waiting for the image {image}{since}: {said}", f"image:{image}")
                if kind == "crash":
                    last = ((container.get("lastState") or {}).get("terminated")) or {}
                    said = f"{last.get('reason', 'Error')} (exit {last.get('exitCode')})" if last else said
                text = f"waiting for the {_role(pod)} to start{since}: {said}"
                return Cause(kind, text, f"{kind}:{_role(pod)}:{_plain(said)}")
        return None

    def _not_made(self, job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> Cause | None:
        missing = _missing(job, pods)
        if not missing:
            return None
        events = self._events(("name", self.name))
        cluster = (job.get("status") or {}).get("rayClusterName")
        if cluster:
            events = sorted([*events, *self._events(("name", cluster))], key=_when)
        for event in reversed(events):
            role = NOT_MADE.get(str(event.get("reason")))
            if role not in missing or event.get("type") != "Warning":
                continue
            kind, said = _refused(_one_line(event.get("message", "")))
            since = _clock(event.get("firstTimestamp") or event.get("eventTime"))
            what = "quota" if kind == "quota" else f"the {role} pod to be admitted"
            return Cause(kind, f"waiting for {what}{since}: {said}", f"{kind}:{role}:{_plain(said)}")
        return None

    def _preparing(self, pods: Sequence[Mapping[str, Any]]) -> Cause | None:
        """A pod with a node whose containers are not made yet: a volume that can't be mounted, or a long download."""
        for pod in pods:
            creating = [
                c
                for c in _containers(pod)
                if ((c.get("state") or {}).get("waiting") or {}).get("reason") == "ContainerCreating"
            ]
            if not creating or not pod.get("spec", {}).get("nodeName"):
                continue
            for event in reversed(self._events(("name", str(pod["metadata"]["name"])))):
                said, since = _one_line(event.get("message", "")), _clock(event.get("firstTimestamp"))
                if event.get("type") == "Warning":
                    kind = "setting" if event.get("reason") == "FailedMount" else "start"
                    text = f"waiting for the {_role(pod)} to start{since}: {said}"
                    return Cause(kind, text, f"{kind}:{_role(pod)}:{_plain(said)}")
                if event.get("reason") == "Pulling":
                    node = pod["spec"]["nodeName"]
                    text = f"waiting for node {node}, which downloads the image{since}"
                    return Cause("download", text, f"download:{node}")
                if event.get("reason") == "Pulled":
                    break
        return None

    def _replaced(self, status: Mapping[str, Any]) -> dict[str, str]:
        """Pods that KubeRay deleted because they had failed, by its events: they may have gone unseen."""
        cluster, found = status.get("rayClusterName"), {}
        if cluster:
            for event in self._events(("name", cluster)):
                said = str(event.get("message", ""))
                pod = re.search(r"Pod \S*?([^/\s;,]+)[;,]", said)
                code, reason = re.search(r"ExitCode:(\d+)", said), re.search(r"[,{]Reason:(\w+)", said)
                if str(event.get("reason", "")).startswith("Deleted") and pod and code and reason:
                    line = f"pod {pod[1]}: {reason[1]} (exit {code[1]})"
                    found[line] = line
        return found


def refusal(error: Any, method: str, name: str, namespace: str) -> LaunchError:
    """The error for an answer of the API server that is not a success."""
    said = _message(error)
    if "exceeded quota" in said:
        return LaunchError(f"RayJob {name} was not taken: {_refused(said)[1]}", FIXES["quota"])
    if error.status == 403 and "denied the request" in said:
        return LaunchError(f"RayJob {name} was not taken: {said}", "change what the webhook named, or ask who runs it")
    if error.status in (401, 403):
        return LaunchError(
            f"the cluster does not allow {method} on RayJob {name} in namespace {namespace}: {said}",
            "use the service account ifas-pipeline-runner of infra/base, or ask for its role",
        )
    if no_such_kind(error):
        return LaunchError("the cluster knows no RayJob", "install the KubeRay operator with its CRDs")
    if error.status == 404 and f'namespaces "{namespace}" not found' in said:
        return LaunchError(f"the cluster has no namespace {namespace}", "apply an overlay of infra first")
    if error.status == 429 or error.status >= 500:
        return LaunchError(
            f"{method} of RayJob {name} was not answered ({error.status}): {said}",
            "start again when the server is well",
        )
    return LaunchError(f"{method} of RayJob {name} was refused ({error.status}): {said}", "correct the named field")


def no_such_kind(error: Any) -> bool:
    """Whether a 404 means that the CRD is missing, not the object."""
    return error.status == 404 and "could not find the requested resource" in _message(error)


def _message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)


def _first(*causes: Cause | None) -> Cause | None:
    return next((cause for cause in causes if cause is not None), None)


def _unscheduled(pods: Sequence[Mapping[str, Any]]) -> Cause | None:
    """The scheduler's message about the pods without a node, with what they ask for together."""
    waiting = [
        (pod, condition)
        for pod in pods
        for condition in pod.get("status", {}).get("conditions") or []
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False"
    ]
    if not waiting:
        return None
    said = _nodes(str(waiting[0][1].get("message") or waiting[0][1].get("reason", "")))
    since = _clock(min(str(condition.get("lastTransitionTime") or "~") for _, condition in waiting))
    what = _asked([pod for pod, _ in waiting], said)
    return Cause("node", f"waiting for {what}{since}: {said}", f"node:{what}:{_plain(said)}")


def _asked(pods: Sequence[Mapping[str, Any]], said: str) -> str:
    gpus = 0
    for pod in pods:
        for container in pod.get("spec", {}).get("containers", []):
            limits = (container.get("resources") or {}).get("limits") or {}
            gpus += sum(int(amount) for name, amount in limits.items() if name.endswith("/gpu"))
    if gpus:
        return f"{gpus} GPU{'s' if gpus > 1 else ''}"
    if "gpu" in said.lower():
        return "GPUs"
    roles = sorted({_role(pod) for pod in pods})
    return f"{'a node' if len(pods) == 1 else f'{len(pods)} nodes'} for the {' and the '.join(roles)}"


def _nodes(message: str) -> str:
    """The first sentence of the scheduler's message; plainer where one resource is all that is missing."""
    said = _one_line(re.split(r"\. (?=[A-Za-z])", message)[0]).rstrip(".")
    only = re.fullmatch(r"0/(\d+) nodes are available: (\d+) Insufficient ([^\s,]+)", said)
    return f"0/{only[1]} nodes have {only[3]} free" if only and only[1] == only[2] else said


def _missing(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> set[str]:
    """The roles of which the job has fewer pods than it asks for."""
    there = [_role(pod) for pod in pods]
    groups = job.get("spec", {}).get("rayClusterSpec", {}).get("workerGroupSpecs", [])
    wanted = {"head": 1, "worker": sum(int(group.get("replicas", 0)) for group in groups)}
    # KubeRay makes the submitter last: its Job while the status is Initializing, the Job's pod when it is Running.
    submits = job.get("spec", {}).get("submissionMode") != "SidecarMode"
    if submits and (job.get("status") or {}).get("jobDeploymentStatus") in ("Initializing", "Running"):
        wanted["submitter"] = 1
    return {role for role, count in wanted.items() if there.count(role) < count}


def _refused(said: str) -> tuple[str, str]:
    """Kind and heart of the message about a pod that was not admitted."""
    for kind, pattern in (("quota", r"exceeded quota:.*"), ("security", r"violates PodSecurity.*")):
        found = re.search(pattern, said)
        if found:
            return kind, found[0]
    return "admission", said


def _killed(pod: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What ended the pod or a container of it against its will, by a key that is the same on every look."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if status.get("phase") == "Failed" and status.get("reason"):
        yield f"{name}:pod", f"pod {name}: {status['reason']}: {_one_line(status.get('message', ''))}"
    for condition in status.get("conditions") or []:
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            said = _one_line(condition.get("message", ""))
            yield f"{name}:disruption", f"pod {name}: {condition.get('reason', 'disrupted')}: {said}"
    for container in _containers(pod):
        for state in (container.get("state") or {}, container.get("lastState") or {}):
            ended = state.get("terminated") or {}
            if ended.get("exitCode"):
                key = f"{name}:{container.get('name')}:{ended.get('finishedAt', '')}:{ended['exitCode']}"
                yield key, f"pod {name}: {ended.get('reason', 'Error')} (exit {ended['exitCode']})"


def _containers(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _labels(thing: Mapping[str, Any]) -> Mapping[str, str]:
    return thing["metadata"].get("labels") or {}


def _role(pod: Mapping[str, Any]) -> str:
    kind = _labels(pod).get("ray.io/node-type")
    return kind if kind in ("head", "worker") else "submitter"


def _when(event: Mapping[str, Any]) -> str:
    last = (event.get("series") or {}).get("lastObservedTime")
    return str(last or event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp") or "")


def _clock(stamp: object) -> str:
    found = re.search(r"T(\d\d:\d\d)", str(stamp or ""))
    return f" since {found[1]} UTC" if found else ""


def _one_line(text: object) -> str:
    line = " ".join(str(text or "").split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def _plain(text: str) -> str:
    """`text` without numbers and generated names, which change between two tellings of the same."""
    return re.sub(r"\d+|-[a-z0-9]{5}\b", "", text)
