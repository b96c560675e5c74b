"""Applies a RayJob, watches it to its end, deletes it.

Safe to call again: it continues to watch a job of the same run and step that still runs, and replaces one that failed.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from ifas.core.errors import LaunchError
from ifas.core.progress import emit
from ifas.launch.diagnosis import Cause, Diagnosis, no_such_kind, refusal
from ifas.launch.rayjob import HASH_ANNOTATION

GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"
FIELD_MANAGER = "ifas"
ENDED = ("Complete", "Failed", "ValidationFailed")
#: Where Kueue keeps the job back, or takes its nodes away again.
QUEUED = ("Suspended", "Suspending")
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a RayJob ended."""

    name: str
    seconds: float
    reattached: bool


class Unanswered(LaunchError):
    """The API server was away, or throttled us, for longer than we wait."""


def connect() -> Any:
    """A Kubernetes API client from the pod's service account, or else from the kubeconfig.

    Raises:
        LaunchError: there is neither.
    """
    from kubernetes import client, config
    from yaml import YAMLError

    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        try:
            # The library itself reads KUBECONFIG only once, when it is imported.
            config.load_kube_config(os.environ.get("KUBECONFIG") or None, client_configuration=configuration)
        except (config.ConfigException, OSError, ValueError, TypeError, AttributeError, YAMLError) as error:
            raise LaunchError(
                f"no Kubernetes cluster is configured ({error})", "set KUBECONFIG, or run inside the cluster"
            ) from error
    # What is repeated, and for how long, is decided here, not in the transport.
    configuration.retries = False
    return client.ApiClient(configuration)


def launching_pod(namespace: str) -> dict[str, Any] | None:
    """The owner reference to the pod that this process runs in, or None.

    Kubernetes deletes the job with that pod, also where nothing in the pod could. KFP tells each of its pods its name
    and uid. A pod of another namespace can't own a job: Kubernetes would take it for gone, and delete the job.
    """
    name, uid = os.environ.get("KFP_POD_NAME"), os.environ.get("KFP_POD_UID")
    try:
        here = NAMESPACE_FILE.read_text().strip()
    except OSError:
        return None
    if not name or not uid or here != namespace:
        return None
    return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}


class RayJobs:
    """The RayJobs of one namespace.

    Args:
        api: a `kubernetes.client.ApiClient`.
        poll_s: seconds between two requests for a job's state.
        look_s: seconds between two looks at its pods and events.
        outage_s: seconds for which the API server may be away or throttle; each request is repeated so long.
        grace_s: seconds for deleting a job after SIGTERM; a pod is killed 30 s after it, unless it says otherwise.
        owner: owner reference that the jobs get; by default that of `launching_pod`.
    """

    def __init__(
        self,
        api: Any,
        namespace: str,
        *,
        poll_s: float = 5,
        look_s: float = 15,
        outage_s: float = 120,
        grace_s: float = 20,
        owner: Mapping[str, Any] | None = None,
    ) -> None:
        self.api = api
        self.namespace = namespace
        self.poll_s = poll_s
        self.look_s = look_s
        self.outage_s = outage_s
        self.grace_s = grace_s
        self.owner = dict(owner) if owner else launching_pod(namespace)
        self._answered = False

    def run(
        self, job: Mapping[str, Any], *, timeout_s: float | None = None, futile: Callable[[], bool] = lambda: False
    ) -> Outcome:
        """Applies `job` and returns when it succeeded. On SIGTERM or Ctrl-C the job is deleted first.

        Args:
            job: what `build_rayjob` made.
            timeout_s: by default the job's own deadlines for every attempt, and ten minutes. Counts anew when the
                job leaves its queue, as the job's own do.
            futile: whether a failed attempt would fail again: KubeRay, which repeats any, is then not let.

        Raises:
            LaunchError: the job failed or took too long (it is then deleted), or the API server refused or can't be
            reached.
        """
        name, step = job["metadata"]["name"], job["metadata"]["labels"]["ifas.dev/step"]
        begin = time.monotonic()
        with self._deleting_when_interrupted(name, step):
            reattached = self.ensure(job)
            if reattached:
                emit("note", step, text=f"RayJob {name} is already there: watching it")
            patience = timeout_s if timeout_s is not None else _patience(job["spec"])
            self.wait(name, step, timeout_s=patience, futile=futile)
        return Outcome(name=name, seconds=time.monotonic() - begin, reattached=reattached)

    def ensure(self, job: Mapping[str, Any]) -> bool:
        """Makes sure that `job` exists and has not failed; True when it was there before.

        Raises:
            LaunchError: another job of the same name is still running.
        """
        name = job["metadata"]["name"]
        found = self.get(name)
        if found is not None:
            status = found.get("status", {})
            ended = status.get("jobDeploymentStatus") in ENDED
            leaving = bool(found["metadata"].get("deletionTimestamp"))
            if not leaving and not _failed(status) and _hash(found) == _hash(job):
                self._own(found)
                return True
            if not leaving and not ended:
                raise LaunchError(
                    f"RayJob {name} runs already, with another specification",
                    f"wait for it, or stop it: {self._by_hand(name)}",
                )
            if not leaving:
                self.delete(name)
            self._wait_gone(name)
        self.apply(job)
        return False

    def apply(self, job: Mapping[str, Any]) -> None:
        """Server-side apply: creates the job, or does nothing when it is as described."""
        query = [("fieldManager", FIELD_MANAGER), ("fieldValidation", "Strict")]
        body = dict(job)
        if self.owner:
            body["metadata"] = {**job["metadata"], "ownerReferences": [self.owner]}
        self._call("PATCH", job["metadata"]["name"], query, body=body, kind="application/apply-patch+yaml")

    def get(self, name: str) -> dict[str, Any] | None:
        """The job as the API server has it, or None."""
        return self._call("GET", name, missing_ok=True)

    def delete(self, name: str, *, within_s: float | None = None) -> None:
        """Deletes the job with its cluster; nothing happens where there is none."""
        query = [("propagationPolicy", "Foreground")]
        self._call("DELETE", name, query, missing_ok=True, within_s=within_s)

    def wait(self, name: str, step: str, *, timeout_s: float, futile: Callable[[], bool] = lambda: False) -> None:
        """Returns when the job has succeeded; reports meanwhile what it waits for, within `look_s` seconds.

        Raises:
            LaunchError: it failed, was deleted, `timeout_s` passed outside of a queue, or another attempt is `futile`
                (the job is deleted in the last two cases).
        """
        deadline, looked = time.monotonic() + timeout_s, time.monotonic() - self.look_s
        told: tuple[str, str] | None = None
        diagnosis = Diagnosis(partial(try_get, self.api), self.namespace, name)
        deaths: set[str] = set()
        while True:
            try:
                job = self.get(name)
            except Unanswered as error:
                # The job goes on by itself: a restart of the API server must not end hours of training.
                fix = f"the job may still run: repeat this command to watch RayJob {name} on"
                raise LaunchError(error.what, fix) from error
            if job is None:
                raise LaunchError(f"RayJob {name} was deleted while it ran", "start the step again")
            status = job.get("status", {})
            if status.get("jobStatus") == "SUCCEEDED":
                return
            if status.get("jobDeploymentStatus") in ENDED:
                raise diagnosis.failure(job)
            if status.get("jobDeploymentStatus") in QUEUED:
                deadline = time.monotonic() + timeout_s
            # `failed` counts attempts: between two looks the next may have begun.
            if (status.get("jobStatus") == "FAILED" or status.get("failed")) and futile():
                self.delete(name)
                raise LaunchError(
                    f"RayJob {name} failed, and would fail again; it was deleted", "read its log for the error"
                )
            if time.monotonic() > deadline:
                last = _line(status, diagnosis.look(job))
                self.delete(name)
                raise LaunchError(
                    f"RayJob {name} did not end within {timeout_s:.0f} s (last: {last}); it was deleted",
                    "raise the deadline, or free the nodes it waits for",
                )
            state = _line(status, None)
            if told is None or told[0] != state or time.monotonic() - looked >= self.look_s:
                looked, cause = time.monotonic(), diagnosis.look(job)
                now = (state, cause.key if cause else "")
                if now != told:
                    emit("note", step, text=f"RayJob {name}: {_line(status, cause)}")
                    told = now
                for line in diagnosis.killed.values():
                    if line not in deaths:
                        emit("note", step, text=f"RayJob {name}: {line}")
                        deaths.add(line)
            time.sleep(self.poll_s)

    def _own(self, found: Mapping[str, Any]) -> None:
        """A job that another pod launched belongs to this one now: it must not be deleted with the other."""
        if self.owner and found["metadata"].get("ownerReferences") != [self.owner]:
            body = {"metadata": {"ownerReferences": [self.owner]}}
            self._call("PATCH", found["metadata"]["name"], body=body, kind="application/merge-patch+json")

    def _wait_gone(self, name: str) -> None:
        deadline = time.monotonic() + 120
        while self.get(name) is not None:
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"the old RayJob {name} is still being deleted",
                    "see that KubeRay's operator runs, which removes its finalizer, then start again",
                )
            time.sleep(min(self.poll_s, 1))

    @contextmanager
    def _deleting_when_interrupted(self, name: str, step: str) -> Iterator[None]:
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, _raise_interrupt) if main else None
        try:
            yield
        except KeyboardInterrupt:
            emit("note", step, text=f"interrupted: deleting RayJob {name}")
            self._delete_before_we_are_killed(name)
            raise
        finally:
            if main:
                signal.signal(signal.SIGTERM, before)

    def _delete_before_we_are_killed(self, name: str) -> None:
        begin = time.monotonic()
        try:
            self.delete(name, within_s=self.grace_s)
        except (LaunchError, KeyboardInterrupt) as error:
            why = error.what if isinstance(error, LaunchError) else "interrupted again"
            owned = f", or delete the pod {self.owner['name']}" if self.owner else ""
            raise LaunchError(
                f"interrupted, but RayJob {name} stays and goes on running: it could not be deleted within "
                f"{time.monotonic() - begin:.0f} s ({why})",
                f"delete it yourself: {self._by_hand(name)}{owned}",
            ) from error

    def _by_hand(self, name: str) -> str:
        return f"kubectl -n {self.namespace} delete rayjob {name}"

    def _call(
        self,
        method: str,
        name: str,
        query: list[tuple[str, str]] | None = None,
        *,
        body: dict[str, Any] | None = None,
        kind: str = "application/json",
        missing_ok: bool = False,
        within_s: float | None = None,
    ) -> dict[str, Any] | None:
        """One request, repeated while the server is away or throttles. All of ours may be sent twice.

        Raises:
            LaunchError: it was refused; or nobody has ever answered at that address.
            Unanswered: it was away for `within_s`, by default `outage_s`.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        path = f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURAL}/{name}"
        begin, told = time.monotonic(), False
        limit = self.outage_s if within_s is None else within_s
        while True:
            left = begin + limit - time.monotonic()
            try:
                timeout = min(30, max(1, left))
                found = send(self.api, method, path, query or [], body=body, kind=kind, timeout_s=timeout)
            except ApiException as error:
                self._answered = True
                if error.status == 404 and missing_ok and not no_such_kind(error):
                    return None
                failure = refusal(error, method, name, self.namespace)
                # A token that is being renewed is refused for a moment, too.
                if error.status not in (401, 429) and error.status < 500:
                    raise failure from error
                pause = _retry_after(error) or self.poll_s
            except (HTTPError, OSError) as error:
                failure = LaunchError(
                    f"the Kubernetes API server at {self.api.configuration.host} can't be reached: {error}",
                    "check KUBECONFIG and the network, then start again",
                )
                if not self._answered and within_s is None:
                    raise failure from error
                pause = self.poll_s
            else:
                self._answered = True
                return dict(found) if found else None
            waited = time.monotonic() - begin
            if waited + min(pause, 1) > limit:
                raise Unanswered(failure.what, failure.fix)
            if waited > self.look_s and not told:
                emit("note", name, text=f"{failure.what}; trying again for {limit - waited:.0f} s")
                told = True
            time.sleep(min(pause, max(0.0, limit - waited)))


def send(
    api: Any,
    method: str,
    path: str,
    query: list[tuple[str, str]],
    *,
    body: dict[str, Any] | None = None,
    kind: str = "application/json",
    answer: str = "object",
    timeout_s: float = 30,
) -> Any:
    """One request, and its answer as an "object" or "str".

    Raises:
        kubernetes.client.ApiException: an answer that is no success.
        urllib3.exceptions.HTTPError, OSError: no answer.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import SSLError

    try:
        # The generated client can't send apply patches of custom objects, its transport can.
        return api.call_api(
            path,
            method,
            {},
            query,
            {"Accept": "application/json, */*", "Content-Type": kind},
            body=body,
            response_type=answer,
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _request_timeout=timeout_s,
        )
    except ApiException as error:
        if error.status:
            raise
        # The transport's form of a TLS handshake that failed.
        raise SSLError(" ".join(str(error.reason).split())) from error


def try_get(api: Any, path: str, query: list[tuple[str, str]], answer: str) -> Any:
    """A GET without which we do as well: None if it is refused or fails."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return send(api, "GET", path, query, answer=answer)
    except (ApiException, HTTPError, OSError):
        return None


def _raise_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _retry_after(error: Any) -> float:
    """Seconds that the server asks us to wait, or 0."""
    said = str((error.headers or {}).get("Retry-After", ""))
    return float(said) if said.isdigit() else 0.0


def _hash(job: Mapping[str, Any]) -> str:
    return str(job["metadata"].get("annotations", {}).get(HASH_ANNOTATION, ""))


def _failed(status: Mapping[str, Any]) -> bool:
    # `jobStatus` FAILED with deployment status Retrying is not final: the operator makes a new cluster.
    ended = status.get("jobDeploymentStatus") in ENDED
    return ended and status.get("jobStatus") != "SUCCEEDED"


def _line(status: Mapping[str, Any], cause: Cause | None) -> str:
    if status.get("jobStatus") == "RUNNING":
        return f"running, but {cause.text}" if cause else "running"
    if cause:
        return cause.text
    state = str(status.get("jobDeploymentStatus") or "")
    # Running means the cluster here, not the job, whose status is still empty.
    return "submitting the job" if state == "Running" else state.lower() or "not seen by KubeRay yet"


def _patience(spec: Mapping[str, Any]) -> float:
    attempts = int(spec["backoffLimit"]) + 1
    return attempts * (float(spec["activeDeadlineSeconds"]) + float(spec["preRunningDeadlineSeconds"])) + 600
