"""What KubeRay's operator does with a RayJob, beside the stand-in for the API server: the job's command really runs.

The command starts as a process of this machine, with the environment that the head's container would have. Its output
is the log of the submitter's pod, its exit code an attempt's end; a deleted job is killed. There is no cluster of Ray.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.api_server import ApiServer


class KubeRay:
    """Runs the RayJobs of one API server, each until it succeeds or has failed `backoffLimit` + 1 times.

    Attributes:
        ran: names of the jobs whose attempts were started, in order.
    """

    def __init__(self, api: ApiServer, folder: Path, env: Mapping[str, str]) -> None:
        self.api, self.folder, self.env = api, folder, dict(env)
        self.ran: list[str] = []
        self._ended = threading.Event()
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._thread = threading.Thread(target=self._operate, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        for uid in list(self._processes):
            self._kill(uid)

    def _operate(self) -> None:
        while not self._ended.is_set():
            jobs = {job["metadata"]["uid"]: job for job in self.api.items("rayjobs")}
            for uid, job in jobs.items():
                if uid not in self._processes:
                    self._begin(uid, job["metadata"]["name"], job)
            for uid in set(self._processes) - set(jobs):
                self._kill(uid)
            time.sleep(0.1)

    def _begin(self, uid: str, name: str, job: Mapping[str, Any], failures: int = 0) -> None:
        cluster = job["spec"]["rayClusterSpec"]
        head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
        env = {item["name"]: item["value"] for item in head["env"] if "value" in item}
        env |= {"HOME": str(self.folder), "IFAS_HOME": str(self.folder / "home"), **self.env}
        pod = f"{name}-{uid[:5]}-{failures}"
        self.api.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": pod, "namespace": "ifas", "labels": {"job-name": name}},
                "spec": {"containers": [{"name": "ray-job-submitter", "image": "i"}]},
            }
        )
        self.ran.append(name)
        running = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "failed": failures}
        self.api.set_status("rayjobs", name, running)
        self.folder.mkdir(exist_ok=True)
        process = subprocess.Popen(
            ["bash", "-c", f"exec {_here(job['spec']['entrypoint'])}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **env},
            cwd=self.folder,
            start_new_session=True,
        )
        self._processes[uid] = process
        threading.Thread(target=self._follow, args=(uid, job, pod, process, failures), daemon=True).start()

    def _follow(
        self, uid: str, job: Mapping[str, Any], pod: str, process: subprocess.Popen[str], failures: int
    ) -> None:
        name = job["metadata"]["name"]
        assert process.stdout
        for line in process.stdout:
            self.api.logs[pod] = self.api.logs.get(pod, "") + line
        failed = process.wait() != 0
        if failed and failures < job["spec"]["backoffLimit"]:
            retrying = {"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED", "failed": failures + 1}
            self.api.set_status("rayjobs", name, retrying)
            time.sleep(2)
            if not self._ended.is_set() and any(one["metadata"]["uid"] == uid for one in self.api.items("rayjobs")):
                self._begin(uid, name, job, failures + 1)
            return
        end = ("Failed", "FAILED") if failed else ("Complete", "SUCCEEDED")
        status = {"jobDeploymentStatus": end[0], "jobStatus": end[1], **({"reason": "AppFailed"} if failed else {})}
        self.api.set_status("rayjobs", name, status)

    def _kill(self, uid: str) -> None:
        process = self._processes[uid]
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def idle(self) -> bool:
        """Whether no job's process is alive."""
        return all(process.poll() is not None for process in self._processes.values())


def _here(entrypoint: str) -> str:
    """The command with this interpreter's `ifas`."""
    program, *rest = shlex.split(entrypoint)
    return shlex.join([str(Path(sys.executable).with_name(program)), *rest])


@contextmanager
def kuberay(api: ApiServer, folder: Path, env: Mapping[str, str]) -> Iterator[KubeRay]:
    operator = KubeRay(api, folder, env)
    operator.start()
    try:
        yield operator
    finally:
        operator.stop()
