"""Controllers for the stand-in API server: what KubeRay, the kubelet and a network plugin would do, on this machine.

All tests that need them play these, so that there is one picture of how the real ones act.

Containers really run, as processes: steps, the entrypoints of RayJobs and the served Bento, against a real object
store. Pods, clusters of Ray and networks do not: their objects and states are played, a worker's pod that is deleted
takes a real process of the job's own Ray with it, and a connection is open where the network policies say so.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ifas.launch.survey import selects
from tests.api_server import ApiServer
from tests.servers import Endpoint, free_port

BIN = Path(sys.executable).parent
#: Seconds between two attempts of a RayJob.
RETRY_S = 2


@dataclass
class Process:
    """A container that runs as a process of this machine."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def code(self) -> int | None:
        return self.popen.poll()

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()


@dataclass
class Operators:
    """Plays the controllers until `stop`.

    Attributes:
        enforced: whether the network plugin enforces policies.
        hold: seconds that the entrypoint of a job takes at least, as the job's state tells it.
        ran: names of the RayJobs whose attempts were started, in order.
    """

    server: ApiServer
    store: Endpoint
    scratch: Path
    enforced: bool = True
    hold: float = 3
    processes: dict[str, Process] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)
    ran: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    address: int = 10

    def start(self) -> None:
        self.server.execute = self.execute
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.over.set()
        self.thread.join(30)
        for process in self.processes.values():
            process.kill()

    def loop(self) -> None:
        while not self.over.wait(0.1):
            try:
                self.turn()
            except Exception as error:  # noqa: BLE001 - shown by the test that uses the server
                self.server.errors.append(error)

    def turn(self) -> None:
        server = self.server
        for service in server.items("services"):
            if not service["spec"].get("clusterIP"):
                service["spec"]["clusterIP"] = self.new_address()
                server.put(service)
        for quota in server.items("resourcequotas"):
            if "status" not in quota:
                where = quota["metadata"]["namespace"]
                server.set_status("resourcequotas", quota["metadata"]["name"], {"hard": quota["spec"]["hard"]}, where)
        for rayjob in server.items("rayjobs"):
            self.rayjob(rayjob)
        for job in server.items("jobs"):
            if "template" in job.get("spec", {}) and "conditions" not in job.get("status", {}):
                self.job(job)
        for pod in server.items("pods"):
            owned = pod["metadata"].get("ownerReferences")
            if not owned and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
                self.bare_pod(pod)
        for deployment in server.items("deployments"):
            if deployment["spec"].get("replicas") and "readyReplicas" not in deployment.get("status", {}):
                self.deployment(deployment)
        alive = {doc["metadata"]["uid"] for doc in server.objects.copy().values()}
        for key in [key for key in self.processes if key.split("/")[0] not in alive]:
            self.processes.pop(key).kill()

    # The kubelet.

    def run(self, key: str, template: dict[str, Any], container: dict[str, Any], command: list[str]) -> Process:
        """Starts a container's command with its environment; /scratch, /tmp and /bento are folders of the pod."""
        if key in self.processes:
            return self.processes[key]
        folder = self.scratch / key.split("/")[0]
        for name in ("scratch", "bento", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        namespace = template["namespace"]

        def here(text: str) -> str:
            for name in ("scratch", "bento"):
                text = text.replace(f"/{name}/", f"{folder / name}/")
            return text

        environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "LANG": "C.UTF-8", "DS_ACCELERATOR": "cpu"}
        for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            environment[name] = os.environ.get(name, "1")
        for source in container.get("envFrom", []):
            settings = self.server.get("configmaps", source["configMapRef"]["name"], namespace)
            environment |= settings["data"]
        for item in container.get("env", []):
            if "valueFrom" in item:
                ref = item["valueFrom"]["secretKeyRef"]
                secret = self.server.get("secrets", ref["name"], namespace)
                given = {k: base64.b64decode(v).decode() for k, v in (secret.get("data") or {}).items()}
                environment[item["name"]] = given[ref["key"]]
            else:
                environment[item["name"]] = here(item.get("value", ""))
        assert environment.get("AWS_ACCESS_KEY_ID", self.store.access_key) != "", "the key comes by the Secret"
        environment |= {"AWS_ENDPOINT_URL": self.store.url, **self.store.env, "HOME": str(folder / "tmp")}
        environment["TMPDIR"] = str(folder / "tmp")
        if "URL" in environment:
            environment["URL"] = f"http://127.0.0.1:{self.ports[environment['URL'].split('/')[2].split('.')[0]]}"
        log = folder / f"{key.split('/')[1]}.log"
        with log.open("ab") as out:
            popen = subprocess.Popen(
                [here(word) for word in command],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=folder / "scratch",
                start_new_session=True,
            )
        self.processes[key] = Process(popen, log)
        return self.processes[key]

    def bare_pod(self, pod: dict[str, Any]) -> None:
        meta = pod["metadata"]
        if "podIP" not in pod.get("status", {}):
            self.set(pod, {"phase": "Running", "podIP": self.new_address(), "conditions": []})
            return
        command = pod["spec"]["containers"][0].get("command", [])
        if command[:2] == ["python", "-c"] and "create_connection" in command[2]:
            opened = self.open(pod, command[3], int(command[4]))
            self.server.logs[meta["name"]] = "open\n" if opened else "closed: timed out\n"
            self.set(pod, {**pod["status"], "phase": "Succeeded"})

    def execute(self, pod: dict[str, Any], command: list[str], stdin: bytes) -> tuple[int, str]:
        """`kubectl exec`: runs the command here; when the store's binary has arrived, its pod is ready."""
        folder = self.scratch / pod["metadata"]["uid"]
        folder.mkdir(parents=True, exist_ok=True)
        words = [word.replace("/scratch/", f"{folder}/") for word in command]
        words[0] = sys.executable if words[0] == "python" else words[0]
        done = subprocess.run(words, input=stdin, capture_output=True, check=False, timeout=60)
        if (folder / "weed").exists():
            ready = [{"type": "Ready", "status": "True"}]
            self.set(pod, {"phase": "Running", "podIP": self.new_address(), "conditions": ready})
        return done.returncode, (done.stdout + done.stderr).decode()

    def job(self, job: dict[str, Any]) -> None:
        meta, uid = job["metadata"], job["metadata"]["uid"]
        template = job["spec"]["template"]
        container = template["spec"]["containers"][0]
        process = self.run(f"{uid}/step", {"namespace": meta["namespace"]}, container, container["command"])
        name = f"{meta['name']}-x"
        if self.server.get("pods", name, meta["namespace"]) is None:
            labels = {**template["metadata"]["labels"], "job-name": meta["name"]}
            self.make_pod(name, meta["namespace"], labels, template["spec"], "Job", job)
        if process.code is not None:
            self.server.logs[name] = process.text()
            kind = "Failed" if process.code else "Complete"
            self.set(job, {"conditions": [{"type": kind, "status": "True"}]})

    def deployment(self, deployment: dict[str, Any]) -> None:
        meta, uid = deployment["metadata"], deployment["metadata"]["uid"]
        spec = deployment["spec"]["template"]["spec"]
        where = {"namespace": meta["namespace"]}
        for container in spec.get("initContainers", []):
            process = self.run(f"{uid}/{container['name']}", where, container, container["command"])
            if process.code is None:
                return
            assert process.code == 0, process.text()
        port = self.ports.setdefault(meta["name"], free_port())
        container = spec["containers"][0]
        command = [{"0.0.0.0": "127.0.0.1", "3000": str(port)}.get(word, word) for word in container["command"]]
        process = self.run(f"{uid}/serve", where, container, command)
        assert process.code is None, process.text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                pass
        except OSError:
            return
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        self.make_pod(f"{meta['name']}-x", meta["namespace"], labels, spec, "Deployment", deployment)
        self.set(deployment, {"readyReplicas": 1})

    def make_pod(
        self, name: str, namespace: str, labels: dict[str, str], spec: dict[str, Any], kind: str, owner: dict[str, Any]
    ) -> dict[str, Any]:
        reference = {"kind": kind, "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
        meta = {"name": name, "namespace": namespace, "labels": labels, "ownerReferences": [reference]}
        status = {"phase": "Running", "podIP": self.new_address(), "containerStatuses": [_running(spec)]}
        return self.server.put(
            {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status},
        )

    def set(self, doc: dict[str, Any], status: dict[str, Any]) -> None:
        resource = self.server.of(doc).plural
        self.server.set_status(resource, doc["metadata"]["name"], status, doc["metadata"].get("namespace", "ifas"))

    def new_address(self) -> str:
        self.address += 1
        return f"10.0.{self.address // 250}.{self.address % 250}"

    # KubeRay.

    def rayjob(self, job: dict[str, Any]) -> None:
        meta, status = job["metadata"], job.get("status") or {}
        name, namespace = meta["name"], meta["namespace"]
        failed = status.get("failed", 0)
        if meta.get("deletionTimestamp"):
            self.server.remove("rayjobs", name, namespace)
            return
        state = status.get("jobDeploymentStatus", "")
        if not state or (state == "Retrying" and time.monotonic() > self.since[f"{meta['uid']}/retry"]):
            cluster = f"{name}-{uuid.uuid4().hex[:5]}"
            owner = {"kind": "RayJob", "name": name, "uid": meta["uid"]}
            about = {"name": cluster, "namespace": namespace, "ownerReferences": [owner]}
            self.server.put({"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": about})
            fresh = self.server.get("rayjobs", name, namespace)
            fresh["metadata"]["finalizers"] = ["ray.io/rayjob-finalizer"]
            self.server.put(fresh)
            begun = {"jobDeploymentStatus": "Initializing", "rayClusterName": cluster}
            self.set(fresh, {**begun, "failed": failed} if failed else begun)
        elif state == "Initializing" and self.pods_of(job, status["rayClusterName"]):
            self.set(job, {**status, "jobDeploymentStatus": "Running"})
        elif state == "Running":
            self.pods_of(job, status["rayClusterName"])
            self.submitted(job, status)

    def pods_of(self, job: dict[str, Any], cluster: str) -> bool:
        """Makes the pods of the cluster that are missing; whether all of them run."""
        namespace = job["metadata"]["namespace"]
        owner = self.server.get("rayclusters", cluster, namespace)
        spec = job["spec"]["rayClusterSpec"]
        groups = [("head", spec["headGroupSpec"]["template"], 1)]
        groups += [("worker", group["template"], group["replicas"]) for group in spec["workerGroupSpecs"]]
        running = True
        for kind, template, count in groups:
            labels = {**template["metadata"]["labels"], "ray.io/cluster": cluster, "ray.io/node-type": kind}
            there = [
                p for p in self.server.items("pods", namespace) if labels.items() <= p["metadata"]["labels"].items()
            ]
            if len(there) < count and cluster in self.complete:
                self.kill_worker(_attempt(job))
            for _ in range(count - len(there)):
                if any(q["spec"]["hard"].get("pods") == "0" for q in self.server.items("resourcequotas", namespace)):
                    said = 'pods "x" is forbidden: exceeded quota: cluster-test, requested: pods=1, limited: pods=0'
                    self.warn(cluster, f"FailedToCreate{kind.title()}Pod", said, namespace)
                    return False
                name = f"{cluster}-{kind}-{uuid.uuid4().hex[:5]}"
                there.append(self.make_pod(name, namespace, labels, template["spec"], "RayCluster", owner))
            for pod in there:
                held_up = self.held_up(pod["spec"], namespace)
                if held_up:
                    self.set(pod, held_up)
                    running = False
                elif pod["status"]["phase"] != "Running":
                    self.set(
                        pod, {"phase": "Running", "podIP": "10.1.0.1", "containerStatuses": [_running(pod["spec"])]}
                    )
        if running:
            self.complete.add(cluster)
        return running

    def kill_worker(self, entrypoint: str) -> None:
        """Ends one of the processes in which the job trains or captions."""
        if entrypoint not in self.processes:
            return
        with suppress(psutil.NoSuchProcess):
            for one in psutil.Process(self.processes[entrypoint].popen.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if one.cmdline()[:1] and one.cmdline()[0].startswith(("ray::RayTrainWorker", "ray::MapWorker")):
                        one.kill()
                        return

    def held_up(self, spec: dict[str, Any], namespace: str) -> dict[str, Any] | None:
        """The status of a pod that can't start."""
        container = spec["containers"][0]
        if container["image"].startswith("registry.invalid/"):
            return _waiting(container, "ImagePullBackOff", f'Back-off pulling image "{container["image"]}"')
        if float(str(container["resources"]["requests"]["cpu"])) > 1000:
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            condition |= {"message": "0/1 nodes are available: 1 Insufficient cpu. preemption: none", **_NOW}
            return {"phase": "Pending", "conditions": [condition]}
        for item in container.get("env", []):
            if "valueFrom" in item:
                secret = item["valueFrom"]["secretKeyRef"]["name"]
                if self.server.get("secrets", secret, namespace) is None:
                    return _waiting(container, "CreateContainerConfigError", f'secret "{secret}" not found')
        return None

    def submitted(self, job: dict[str, Any], status: dict[str, Any]) -> None:
        meta = job["metadata"]
        head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
        failed = status.get("failed", 0)
        key, name = _attempt(job), f"{meta['name']}-submitter-{failed}"
        pod = self.server.get("pods", name, meta["namespace"])
        if pod is None:
            template = job["spec"]["submitterPodTemplate"]
            labels = {**template["metadata"]["labels"], "job-name": meta["name"]}
            pod = self.make_pod(name, meta["namespace"], labels, template["spec"], "RayJob", job)
        held_up = self.held_up(pod["spec"], meta["namespace"])
        if held_up:
            self.set(pod, held_up)
            return
        if key not in self.processes:
            self.ran.append(meta["name"])
        process = self.run(key, {"namespace": meta["namespace"]}, head, ["bash", "-c", job["spec"]["entrypoint"]])
        begin = self.since.setdefault(key, time.monotonic())
        self.server.logs[name] = process.text()
        if process.code is None or time.monotonic() - begin < self.hold:
            if status.get("jobStatus") != "RUNNING":
                self.set(job, {**status, "jobStatus": "RUNNING"})
        elif process.code == 0:
            self.set(job, {**status, "jobStatus": "SUCCEEDED", "jobDeploymentStatus": "Complete"})
        elif failed < job["spec"]["backoffLimit"]:
            # Another cluster, with empty disks.
            self.server.remove("rayclusters", status["rayClusterName"], meta["namespace"])
            shutil.rmtree(self.scratch / meta["uid"] / "scratch")
            self.since[f"{meta['uid']}/retry"] = time.monotonic() + RETRY_S
            self.set(job, {"jobStatus": "FAILED", "jobDeploymentStatus": "Retrying", "failed": failed + 1})
        else:
            ended = {"jobStatus": "FAILED", "jobDeploymentStatus": "Failed", "reason": "AppFailed"}
            self.set(job, {**status, **ended, "message": f"exit code {process.code}"})

    def idle(self) -> bool:
        """Whether no container runs."""
        return all(process.code is not None for process in self.processes.copy().values())

    def warn(self, name: str, reason: str, message: str, namespace: str) -> None:
        about = {"kind": "RayCluster", "name": name, "namespace": namespace}
        meta = {"name": f"{name}.{reason.lower()}", "namespace": namespace}
        event = {"apiVersion": "v1", "kind": "Event", "metadata": meta, "involvedObject": about, "type": "Warning"}
        self.server.put({**event, "reason": reason, "message": message, "firstTimestamp": "2026-01-01T14:02:00Z"})

    # The network plugin.

    def open(self, source: dict[str, Any], host: str, port: int) -> bool:
        """Whether the network policies let a pod connect to an address."""
        target, number = self.target(host, port)
        if target is None or not self.enforced:
            return True
        out = self.lets(source, "Egress", target, number)
        return out and self.lets(target, "Ingress", source, number)

    def target(self, host: str, port: int) -> tuple[dict[str, Any] | None, int]:
        """The pod at an address, through a service where it is one, and its port."""
        pods = self.server.items("pods")
        for service in self.server.items("services"):
            if service["spec"].get("clusterIP") == host:
                (entry,) = [p for p in service["spec"]["ports"] if p["port"] == port]
                here = service["metadata"]["namespace"]
                for pod in pods:
                    labels = pod["metadata"].get("labels") or {}
                    if pod["metadata"]["namespace"] == here and service["spec"]["selector"].items() <= labels.items():
                        return pod, _number(pod, entry.get("targetPort", port))
        return next((pod for pod in pods if pod.get("status", {}).get("podIP") == host), None), port

    def lets(self, pod: dict[str, Any], way: str, other: dict[str, Any], port: int) -> bool:
        """Whether the policies of `pod` let a connection pass; `port` is that of the pod at its end."""
        here = pod["metadata"]["namespace"]
        meant = [
            policy["spec"]
            for policy in self.server.items("networkpolicies", here)
            if way in policy["spec"]["policyTypes"]
            and selects(policy["spec"]["podSelector"], pod["metadata"].get("labels") or {})
        ]
        if not meant:
            return True
        peers, ends = ("from", pod) if way == "Ingress" else ("to", other)
        return any(
            (not rule.get("ports") or any(_number(ends, item["port"]) == port for item in rule["ports"]))
            and (not rule.get(peers) or any(self.is_peer(peer, here, other) for peer in rule[peers]))
            for policy in meant
            for rule in policy.get(way.lower()) or []
        )

    def is_peer(self, peer: dict[str, Any], here: str, other: dict[str, Any]) -> bool:
        where = other["metadata"]["namespace"]
        if "namespaceSelector" in peer:
            namespace = self.server.get("namespaces", where)
            around = {"kubernetes.io/metadata.name": where, **(namespace["metadata"].get("labels") or {})}
            if not selects(peer["namespaceSelector"], around):
                return False
        elif where != here:
            return False
        return selects(peer.get("podSelector", {}), other["metadata"].get("labels") or {})


def _attempt(job: dict[str, Any]) -> str:
    """Key of the process that is this attempt's entrypoint."""
    return f"{job['metadata']['uid']}/entrypoint-{(job.get('status') or {}).get('failed', 0)}"


_NOW = {"lastTransitionTime": "2026-01-01T14:02:00Z"}


def _running(spec: dict[str, Any]) -> dict[str, Any]:
    return {"name": spec["containers"][0]["name"], "state": {"running": {}}}


def _waiting(container: dict[str, Any], reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    entry = {"name": container["name"], "image": container["image"], "state": state}
    return {"phase": "Pending", "startTime": "2026-01-01T14:02:00Z", "containerStatuses": [entry]}


def _number(pod: dict[str, Any], port: int | str) -> int:
    if isinstance(port, int):
        return port
    names = {p.get("name"): p["containerPort"] for c in pod["spec"]["containers"] for p in c.get("ports", [])}
    return int(names.get(port, 0))
