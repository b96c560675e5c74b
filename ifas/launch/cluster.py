"""Applies a RayJob, watches it to its end, deletes it. The only module that talks to a Kubernetes API server.

Safe to call again: it continues to watch a job of the same run and step that still runs, and replaces one that failed.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from ifas.core.errors import LaunchError
from ifas.core.progress import emit
from ifas.launch import diagnosis
from ifas.launch.rayjob import HASH_ANNOTATION

GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"
FIELD_MANAGER = "ifas"
ENDED = ("Complete", "Failed", "ValidationFailed")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a RayJob ended."""

    name: str
    seconds: float
    reattached: bool


def connect() -> Any:
    """A Kubernetes API client from the pod's service account, or else from the kubeconfig.

    Raises:
        LaunchError: there is neither.
    """
    from kubernetes import client, config
    from yaml import YAMLError

    try:
        config.load_incluster_config()
    except config.ConfigException:
        try:
            config.load_kube_config()
        except (config.ConfigException, OSError, ValueError, TypeError, AttributeError, YAMLError) as error:
            raise LaunchError(
                f"no Kubernetes cluster is configured ({error})", "set KUBECONFIG, or run inside the cluster"
            ) from error
    return client.ApiClient()


class RayJobs:
    """The RayJobs of one namespace.

    Args:
        api: a `kubernetes.client.ApiClient`.
        poll_s: seconds between two requests for a job's state.
        outage_s: seconds for which the API server may be unreachable while a job is watched.
    """

    def __init__(self, api: Any, namespace: str, *, poll_s: float = 5, outage_s: float = 120) -> None:
        self.api = api
        self.namespace = namespace
        self.poll_s = poll_s
        self.outage_s = outage_s

    def run(self, job: Mapping[str, Any], *, timeout_s: float | None = None) -> Outcome:
        """Applies `job` and returns when it succeeded. On SIGTERM or Ctrl-C the job is deleted first.

        Args:
            job: what `build_rayjob` made.
            timeout_s: by default the job's own deadlines for every attempt, and ten minutes.

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
            self.wait(name, step, timeout_s=timeout_s if timeout_s is not None else _patience(job["spec"]))
        return Outcome(name=name, seconds=time.monotonic() - begin, reattached=reattached)

    def ensure(self, job: Mapping[str, Any]) -> bool:
        """Makes sure that `job` exists and has not failed; True when it was there before.

        Raises:
            LaunchError: another job of the same name is still running.
        """
        name = job["metadata"]["name"]
        found = self.get(name)
        if found is not None:
            same = _hash(found) == _hash(job)
            status = found.get("status", {})
            if _failed(status):
                self.delete(name)
                self._wait_gone(name)
            elif same:
                return True
            elif status.get("jobDeploymentStatus") not in ENDED:
                raise LaunchError(
                    f"RayJob {name} runs already, with another specification",
                    f"wait for it, or stop it: kubectl -n {self.namespace} delete rayjob {name}",
                )
            else:
                self.delete(name)
                self._wait_gone(name)
        self.apply(job)
        return False

    def apply(self, job: Mapping[str, Any]) -> None:
        """Server-side apply: creates the job, or does nothing when it is as described."""
        query = [("fieldManager", FIELD_MANAGER), ("fieldValidation", "Strict")]
        self._call("PATCH", job["metadata"]["name"], query, body=dict(job), kind="application/apply-patch+yaml")

    def get(self, name: str) -> dict[str, Any] | None:
        """The job as the API server has it, or None."""
        return self._call("GET", name, missing_ok=True)

    def delete(self, name: str) -> None:
        """Deletes the job with its cluster; nothing happens where there is none."""
        self._call("DELETE", name, [("propagationPolicy", "Foreground")], missing_ok=True)

    def wait(self, name: str, step: str, *, timeout_s: float) -> None:
        """Returns when the job has succeeded; reports meanwhile what it waits for.

        Raises:
            LaunchError: it failed, was deleted, or `timeout_s` passed (the job is deleted then).
        """
        deadline, since, said = time.monotonic() + timeout_s, datetime.now(UTC), ""
        last_answer = time.monotonic()
        while True:
            try:
                job = self.get(name)
            except LaunchError as error:
                # The job goes on by itself: a restart of the API server must not end hours of training.
                if time.monotonic() - last_answer > self.outage_s:
                    fix = f"the job may still run: repeat this command to watch RayJob {name} on"
                    raise LaunchError(error.what, fix) from error
                time.sleep(self.poll_s)
                continue
            last_answer = time.monotonic()
            if job is None:
                raise LaunchError(f"RayJob {name} was deleted while it ran", "start the step again")
            status = job.get("status", {})
            if status.get("jobStatus") == "SUCCEEDED":
                return
            if _failed(status) or status.get("jobDeploymentStatus") in ENDED:
                raise diagnosis.failure(self.api, self.namespace, name, status)
            if time.monotonic() > deadline:
                what = diagnosis.waiting_for(self.api, self.namespace, status) or _state(status)
                self.delete(name)
                raise LaunchError(
                    f"RayJob {name} did not end within {timeout_s:.0f} s (last: {what}); it was deleted",
                    "raise the deadline, or free the nodes it waits for",
                )
            line = self._line(status, since)
            if line != said:
                emit("note", step, text=f"RayJob {name}: {line}")
                said = line
            time.sleep(self.poll_s)

    def _line(self, status: Mapping[str, Any], since: datetime) -> str:
        if status.get("jobStatus") == "RUNNING":
            return "running"
        why = diagnosis.waiting_for(self.api, self.namespace, status)
        return f"waiting for {why} since {since:%H:%M} UTC" if why else _state(status)

    def _wait_gone(self, name: str) -> None:
        deadline = time.monotonic() + 120
        while self.get(name) is not None:
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"the failed RayJob {name} is still being deleted", "look at its finalizers, then start again"
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
            self.delete(name)
            raise
        finally:
            if main:
                signal.signal(signal.SIGTERM, before)

    def _call(
        self,
        method: str,
        name: str,
        query: list[tuple[str, str]] | None = None,
        *,
        body: dict[str, Any] | None = None,
        kind: str = "application/json",
        missing_ok: bool = False,
    ) -> dict[str, Any] | None:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        path = f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURAL}/{name}"
        headers = {"Accept": "application/json", "Content-Type": kind}
        try:
            # The generated client can't send apply patches of custom objects, its transport can.
            answer: dict[str, Any] = self.api.call_api(
                path,
                method,
                {},
                query or [],
                headers,
                body=body,
                response_type="object",
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=30,
            )
        except ApiException as error:
            if error.status == 404 and missing_ok and not diagnosis.no_such_kind(error):
                return None
            raise diagnosis.refusal(error, method, name, self.namespace) from error
        except (HTTPError, OSError) as error:
            raise LaunchError(
                f"the Kubernetes API server at {self.api.configuration.host} can't be reached: {error}",
                "check KUBECONFIG and the network, then start again",
            ) from error
        return answer


def _raise_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _hash(job: Mapping[str, Any]) -> str:
    return str(job["metadata"].get("annotations", {}).get(HASH_ANNOTATION, ""))


def _failed(status: Mapping[str, Any]) -> bool:
    # `jobStatus` FAILED with deployment status Retrying is not final: the operator makes a new cluster.
    ended = status.get("jobDeploymentStatus") in ENDED
    return ended and status.get("jobStatus") != "SUCCEEDED"


def _state(status: Mapping[str, Any]) -> str:
    return str(status.get("jobDeploymentStatus") or "not seen by KubeRay yet").lower()


def _patience(spec: Mapping[str, Any]) -> float:
    attempts = int(spec["backoffLimit"]) + 1
    return attempts * (float(spec["activeDeadlineSeconds"]) + float(spec["preRunningDeadlineSeconds"])) + 600
