"""The launcher against the stand-in API server: what is sent, what is told meanwhile, and how it ends.

The stand-in has no controllers, so each test moves the job's status, pods and events as KubeRay and the kubelet would.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ifas.core.config import RayConfig
from ifas.core.errors import LaunchError
from ifas.core.progress import EVENTS_ENV
from ifas.launch import cluster
from ifas.launch.cluster import RayJobs
from ifas.launch.rayjob import RayJobSpec, build_rayjob
from tests.api_server import ApiServer, Fault, Refused, api_server
from tests.servers import free_port

SIZE = RayConfig(gpus_per_worker=1, min_workers=2, max_workers=2)
SPEC = RayJobSpec(
    size=SIZE,
    step="train",
    run_id="r1",
    image="registry.example/ifas:1",
    config="base",
    inputs={"dataset": "s3://b/d"},
    outputs={"model": "s3://b/m"},
)
JOB = build_rayjob(SPEC)
NAME = JOB["metadata"]["name"]

INITIALIZING = {"jobDeploymentStatus": "Initializing", "rayClusterName": "c"}
SUBMITTING = {"jobDeploymentStatus": "Running", "rayClusterName": "c"}
RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "rayClusterName": "c"}
DEFAULT = RayJobs(None, "ifas")
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
FAILED = {
    "jobDeploymentStatus": "Failed",
    "jobStatus": "FAILED",
    "reason": "AppFailed",
    "message": "exit 5",
    "rayClusterName": "c",
}


@pytest.fixture
def server():
    with api_server() as running:
        yield running


@pytest.fixture
def events(tmp_path, monkeypatch):
    """The texts that a user was told, so far."""
    path = tmp_path / "events"
    path.touch()
    monkeypatch.setenv(EVENTS_ENV, str(path))
    return lambda: [json.loads(line)["text"] for line in path.read_text().splitlines()]


def jobs_at(url: str, *, token: str = "", **options) -> RayJobs:
    from kubernetes import client

    configuration = client.Configuration(host=url)
    configuration.retries = False
    if token:
        configuration.api_key = {"authorization": f"Bearer {token}"}
    return RayJobs(client.ApiClient(configuration), "ifas", **{"poll_s": 0.01, "look_s": 0.03, **options})


@pytest.fixture
def jobs(server):
    return jobs_at(server.url)


def play(server: ApiServer, *statuses: dict) -> None:
    """Each GET of the job moves its status one on; the last one stays."""
    left = list(statuses)

    def step(method: str, path: str) -> None:
        if method == "GET" and path.endswith(f"/rayjobs/{NAME}") and server.get("rayjobs", NAME):
            server.set_status("rayjobs", NAME, left.pop(0) if len(left) > 1 else left[0])

    server.before = step


def methods(server: ApiServer) -> list[str]:
    return [method for method, path, _, _ in server.seen if "/rayjobs/" in path]


def pod(role: str, number: int = 0, **status) -> dict:
    """A pod of the job as KubeRay makes it from our template."""
    if role == "submitter":
        template, labels = JOB["spec"]["submitterPodTemplate"], {"job-name": NAME}
    elif role == "head":
        template, labels = JOB["spec"]["rayClusterSpec"]["headGroupSpec"]["template"], {"ray.io/node-type": "head"}
    else:
        group = JOB["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
        template, labels = group["template"], {"ray.io/node-type": "worker"}
    if role != "submitter":
        labels["ray.io/cluster"] = "c"
    meta = {
        "name": f"{role}-{number}",
        "namespace": "ifas",
        "labels": {**template["metadata"]["labels"], **labels},
        "creationTimestamp": "2026-01-01T14:01:00Z",
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"], "status": status}


def unscheduled(message: str) -> dict:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": "2026-01-01T14:02:31Z",
    }
    return {"phase": "Pending", "conditions": [condition]}


def waiting(reason: str, message: str, image: str = SPEC.image) -> dict:
    state = {"waiting": {"reason": reason, "message": message}}
    container = {"name": "ray-head", "image": image, "state": state}
    return {"phase": "Pending", "startTime": "2026-01-01T14:02:00Z", "containerStatuses": [container]}


HEALTHY = {"phase": "Running", "containerStatuses": [{"name": "x", "state": {"running": {}}}]}
WORKERS = [pod("worker", 0, **HEALTHY), pod("worker", 1, **HEALTHY)]
QUOTA = "exceeded quota: compute, requested: requests.cpu=8, used: requests.cpu=30, limited: requests.cpu=32"
PSS = 'violates PodSecurity "restricted:latest": runAsNonRoot != true (pod must not set runAsNonRoot=false)'
GPUS = (
    "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: "
    "3 No preemption victims found for incoming pod."
)
CPU = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available."
VOLUME = 'MountVolume.SetUp failed for volume "data": configmap "x" not found'
TAINT = (
    "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
    "2 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling."
)

#: What holds a job up -> KubeRay's status meanwhile, the pods, the events, and the line that a person reads.
STATES = {
    "no GPUs": (
        INITIALIZING,
        [pod("head", **HEALTHY), *(pod("worker", n, **unscheduled(GPUS)) for n in (0, 1))],
        [],
        "waiting for 2 GPUs since 14:02 UTC: 0/3 nodes have nvidia.com/gpu free",
    ),
    "GPUs and taints": (
        INITIALIZING,
        [pod("head", **HEALTHY), pod("worker", 0, **unscheduled(TAINT)), WORKERS[1]],
        [],
        "waiting for 1 GPU since 14:02 UTC: 0/3 nodes are available: 1 node(s) had untolerated taint "
        "{node-role.kubernetes.io/control-plane: }, 2 Insufficient nvidia.com/gpu",
    ),
    "image": (
        INITIALIZING,
        [pod("head", **waiting("ImagePullBackOff", 'Back-off pulling image "x": not found'))],
        [],
        'waiting for the image registry.example/ifas:1 since 14:02 UTC: Back-off pulling image "x": not found',
    ),
    "missing Secret": (
        INITIALIZING,
        [pod("head", **waiting("CreateContainerConfigError", 'secret "ifas-credentials" not found'))],
        [],
        'waiting for the head to start since 14:02 UTC: secret "ifas-credentials" not found',
    ),
    "quota": (
        INITIALIZING,
        [],
        [
            (
                "RayCluster",
                "c",
                "FailedToCreateHeadPod",
                f'Failed to create head Pod ifas/c-head, pods "c" is forbidden: {QUOTA}',
            )
        ],
        f"waiting for quota since 14:02 UTC: {QUOTA}",
    ),
    "quota for workers": (
        INITIALIZING,
        [pod("head", **HEALTHY)],
        [
            (
                "RayCluster",
                "c",
                "FailedToCreateWorkerPod",
                f'Failed to create worker Pod: pods "c" is forbidden: {QUOTA}',
            )
        ],
        f"waiting for quota since 14:02 UTC: {QUOTA}",
    ),
    "Pod Security": (
        INITIALIZING,
        [],
        [("RayCluster", "c", "FailedToCreateHeadPod", f'Failed to create head Pod: pods "c" is forbidden: {PSS}')],
        f"waiting for the head pod to be admitted since 14:02 UTC: {PSS}",
    ),
    "no service account": (
        INITIALIZING,
        [],
        [("RayCluster", "c", "FailedToCreateHeadPod", 'pods "c": serviceaccount "ifas-ray" not found')],
        'waiting for the head pod to be admitted since 14:02 UTC: pods "c": serviceaccount "ifas-ray" not found',
    ),
    "submitter without a node": (
        SUBMITTING,
        [
            pod("head", **HEALTHY),
            *WORKERS,
            pod("submitter", **unscheduled("0/1 nodes are available: 1 Insufficient cpu. x")),
        ],
        [],
        "waiting for a node for the submitter since 14:02 UTC: 0/1 nodes have cpu free",
    ),
    "quota for the submitter": (
        SUBMITTING,
        [pod("head", **HEALTHY), *WORKERS],
        [("Job", NAME, "FailedCreate", f'Error creating: pods "t-abcde" is forbidden: {QUOTA}')],
        f"waiting for quota since 14:02 UTC: {QUOTA}",
    ),
    "quota of Jobs": (
        INITIALIZING,
        [pod("head", **HEALTHY), *WORKERS],
        [("RayJob", NAME, "FailedToCreateRayJobSubmitter", f"Failed to create new Kubernetes Job: {QUOTA}")],
        f"waiting for quota since 14:02 UTC: {QUOTA}",
    ),
    "volume": (
        INITIALIZING,
        [{**(p := pod("head", **waiting("ContainerCreating", ""))), "spec": {**p["spec"], "nodeName": "n1"}}],
        [("Pod", "head-0", "FailedMount", VOLUME)],
        f"waiting for the head to start since 14:02 UTC: {VOLUME}",
    ),
    "crash": (
        INITIALIZING,
        [pod("head", **waiting("CrashLoopBackOff", "back-off 40s restarting failed container"))],
        [],
        "waiting for the head to start since 14:02 UTC: back-off 40s restarting failed container",
    ),
    "running, one worker lost": (
        RUNNING,
        [pod("head", **HEALTHY), WORKERS[0], pod("worker", 1, **unscheduled(GPUS)), pod("submitter", **HEALTHY)],
        [],
        "running, but waiting for 1 GPU since 14:02 UTC: 0/3 nodes have nvidia.com/gpu free",
    ),
}


def put(server: ApiServer, pods: list[dict], about: list[tuple[str, str, str, str]]) -> None:
    for each in pods:
        server.put(each)
    for kind, name, reason, message in about:
        server.event(kind, name, reason, message, at="2026-01-01T14:02:00Z")


@pytest.mark.parametrize("state", STATES)
def test_what_a_job_waits_for_is_told_in_one_line(server, jobs, events, state):
    status, pods, about, line = STATES[state]
    put(server, pods, about)
    play(server, {}, status, status, status, status, DONE)
    jobs.run(JOB)
    assert f"RayJob {NAME}: {line}" in events()
    assert all("\n" not in text for text in events())


@pytest.mark.parametrize("state", [name for name in STATES if not name.startswith("running")])
def test_the_final_error_names_the_cause(server, jobs, state):
    status, pods, about, line = STATES[state]
    put(server, pods, about)
    ended = {"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded", "message": "too late"}
    play(server, status, {**ended, "rayClusterName": "c"})
    with pytest.raises(LaunchError) as caught:
        jobs.run(JOB)
    assert f"failed (PreRunningDeadlineExceeded): too late; it was {line}" in caught.value.what
    assert "\n" not in caught.value.what


@pytest.mark.slow
def test_a_cause_is_told_within_half_a_minute(events):
    """With the pauses as they are by default, and a cause that comes after the job was looked at."""

    def seconds(state: str) -> float:
        status, pods, about, line = STATES[state]
        with api_server() as server, ThreadPoolExecutor() as pool:
            play(server, status)
            waits = pool.submit(jobs_at(server.url, poll_s=DEFAULT.poll_s, look_s=DEFAULT.look_s).run, JOB)
            time.sleep(8)
            put(server, pods, about)
            begin = time.monotonic()
            while f"RayJob {NAME}: {line}" not in events() and time.monotonic() - begin < 60:
                time.sleep(0.2)
            took = time.monotonic() - begin
            play(server, DONE)
            waits.result(timeout=60)
            return took

    causes = ("image", "quota", "missing Secret", "submitter without a node", "no GPUs")
    with ThreadPoolExecutor() as pool:
        took = dict(zip(causes, pool.map(seconds, causes), strict=True))
    assert max(took.values()) <= 30, took


def test_a_line_is_said_once(server, jobs, events):
    """ErrImagePull and ImagePullBackOff take turns; that is one state."""
    turns = [waiting("ErrImagePull", "not found"), waiting("ImagePullBackOff", "Back-off pulling image")]
    play(server, INITIALIZING)
    count = 0

    def turn(method: str, path: str) -> None:
        nonlocal count
        if path.endswith("/pods"):
            count += 1
            server.put(pod("head", **turns[count % 2]))
            if count > 6:
                server.set_status("rayjobs", NAME, DONE)
                server.before = None

    server.before = turn
    jobs.apply(JOB)
    server.set_status("rayjobs", NAME, INITIALIZING)
    jobs.wait(NAME, "train", timeout_s=30)
    assert len([text for text in events() if "waiting for the image" in text]) == 1


def test_a_queue_says_what_it_waits_for(server, jobs, events):
    queued = build_rayjob(replace(SPEC, size=SIZE.model_copy(update={"queue": "training"})))
    said = "couldn't assign flavors to pod set head: insufficient unused quota for nvidia.com/gpu in flavor a100"
    server.event("Workload", f"rayjob-{NAME}-1a2b3", "Pending", said)
    server.event("Workload", "rayjob-other-1a2b3", "Pending", "of another job")
    play(server, {"jobDeploymentStatus": "Suspended"}, {"jobDeploymentStatus": "Suspended"}, DONE)
    jobs.run(queued)
    assert events()[0] == f"RayJob {NAME}: waiting for quota in the queue training: {said}"


def test_a_long_download_is_no_silence(server, jobs, events):
    creating = pod("head", **waiting("ContainerCreating", ""))
    server.put({**creating, "spec": {**creating["spec"], "nodeName": "gpu-1"}})
    server.event("Pod", "head-0", "Pulling", 'Pulling image "x"', kind="Normal", at="2026-01-01T14:02:00Z")
    play(server, INITIALIZING, INITIALIZING, INITIALIZING, DONE)
    jobs.run(JOB)
    assert f"RayJob {NAME}: waiting for node gpu-1, which downloads the image since 14:02 UTC" in events()


def test_an_old_event_is_no_cause_any_more(server, jobs, events):
    """The quota was used up; now every pod is there."""
    put(server, [pod("head", **HEALTHY), *WORKERS, pod("submitter", **HEALTHY)], STATES["quota"][2])
    play(server, RUNNING, RUNNING, RUNNING, DONE)
    jobs.run(JOB)
    assert events() == [f"RayJob {NAME}: running"]


def test_a_job_that_succeeds(server, jobs, events):
    play(server, {}, INITIALIZING, SUBMITTING, RUNNING, DONE)
    outcome = jobs.run(JOB)
    assert outcome.name == NAME
    assert not outcome.reattached
    _, path, query, body = next(item for item in server.seen if item[0] == "PATCH")
    assert path == f"/apis/ray.io/v1/namespaces/ifas/rayjobs/{NAME}"
    assert query == {"fieldManager": ["ifas"], "fieldValidation": ["Strict"]}
    assert body == JOB
    told = [text.removeprefix(f"RayJob {NAME}: ") for text in events()]
    assert told == ["not seen by KubeRay yet", "initializing", "submitting the job", "running"]


KILLS = {
    "OOMKilled": (
        {"containerStatuses": [{"name": "w", "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]},
        "pod worker-0: OOMKilled (exit 137)",
    ),
    "Evicted": (
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
        "pod worker-0: Evicted: The node was low on resource: memory.",
    ),
    "preempted": (
        {
            "conditions": [
                {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "PreemptionByScheduler",
                    "message": "default-scheduler: preempting to accommodate a higher priority pod",
                }
            ]
        },
        "pod worker-0: PreemptionByScheduler: default-scheduler: preempting to accommodate a higher priority pod",
    ),
}


@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_pod_is_told_and_remembered(server, jobs, events, kill):
    status, line = KILLS[kill]
    server.put(pod("worker", 0, **status))
    gets = 0

    def step(method: str, path: str) -> None:
        nonlocal gets
        if path.endswith(f"/rayjobs/{NAME}") and method == "GET":
            gets += 1
            if gets > 4:
                server.remove("pods", "worker-0")
            server.set_status("rayjobs", NAME, RUNNING if gets < 6 else FAILED)

    server.before = step
    with pytest.raises(LaunchError) as caught:
        jobs.run(JOB)
    assert f"RayJob {NAME}: {line}" in events()
    assert line in caught.value.what, "the pod is gone, but what killed it is not forgotten"


def test_failure_names_reason_killed_pods_and_the_log(server, jobs):
    server.put(pod("worker", 0, **KILLS["OOMKilled"][0]))
    server.put(pod("submitter", **HEALTHY))
    server.logs["submitter-0"] = "".join(f"step {n}\n" for n in range(100)) + "TrainingError: killed"
    play(server, RUNNING, FAILED)
    with pytest.raises(LaunchError) as caught:
        jobs.run(JOB)
    for part in ("AppFailed", "exit 5", "worker-0: OOMKilled (exit 137)", "step 99", "TrainingError: killed"):
        assert part in caught.value.what
    assert "step 80\n" not in caught.value.what
    assert "memory" in caught.value.fix


def test_a_pod_that_nobody_saw_die_is_in_the_operators_events(server, jobs):
    said = (
        "Deleted worker Pod ifas/c-worker-x; Pod status: Failed; Pod restart policy: Never; Ray container terminated "
        "status: &ContainerStateTerminated{ExitCode:137,Signal:0,Reason:OOMKilled,Message:,}"
    )
    server.event("RayCluster", "c", "DeletedWorkerPod", said, kind="Normal")
    play(server, RUNNING, FAILED)
    with pytest.raises(LaunchError, match=re.escape("pod c-worker-x: OOMKilled (exit 137)")):
        jobs.run(JOB)


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        ({"reason": "DeadlineExceeded"}, "with train.storage another run's does, too"),
        ({"reason": "JobDeploymentStatusTransitionGracePeriodExceeded"}, "ifas.dev/kuberay-operator=true"),
        ({"reason": "SubmissionFailed"}, "describe rayjob"),
    ],
)
def test_what_helps(server, jobs, status, fix):
    play(server, RUNNING, {**FAILED, **status})
    with pytest.raises(LaunchError, match=status["reason"]) as caught:
        jobs.run(JOB)
    assert fix in caught.value.fix


def test_a_retry_of_the_operator_is_no_end(server, jobs):
    play(server, RUNNING, {"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED"}, RUNNING, DONE)
    jobs.run(JOB)


def test_our_own_timeout_deletes_the_job(server, jobs):
    play(server, RUNNING)
    with pytest.raises(LaunchError, match="did not end within"):
        jobs.run(JOB, timeout_s=0.1)
    assert server.get("rayjobs", NAME) is None


@pytest.mark.parametrize("state", ["Suspended", "Suspending"])
def test_time_in_a_queue_does_not_count_towards_the_timeout(server, jobs, state):
    """Kueue suspends the job until there is room, which may take days."""
    play(server, *[{"jobDeploymentStatus": state}] * 60, RUNNING, DONE)
    begin = time.monotonic()
    jobs.run(JOB, timeout_s=0.5)
    assert time.monotonic() - begin > 0.6


def test_a_running_job_of_the_same_run_is_watched_on(server, jobs):
    server.put({**JOB, "status": RUNNING})
    play(server, RUNNING, RUNNING, DONE)
    assert jobs.run(JOB).reattached
    assert "PATCH" not in methods(server)


def test_a_failed_job_of_the_same_run_is_replaced(server, jobs):
    server.put({**JOB, "status": FAILED})
    jobs.ensure(JOB)
    assert methods(server) == ["GET", "DELETE", "GET", "PATCH"]


def test_a_job_that_is_being_deleted_is_not_taken_up(server, jobs):
    """A cancelled step that starts again at once: the finalizer of KubeRay still holds the old job."""
    old = {**JOB, "metadata": {**JOB["metadata"], "finalizers": ["ray.io/rayjob-finalizer"]}, "status": RUNNING}
    server.put(old)
    jobs.delete(NAME)
    uid = server.get("rayjobs", NAME)["metadata"]["uid"]
    threading.Timer(0.3, server.remove, ("rayjobs", NAME)).start()
    assert jobs.ensure(JOB) is False
    assert server.get("rayjobs", NAME)["metadata"]["uid"] != uid


def test_a_different_job_of_the_same_name_is_not_touched(server, jobs):
    server.put({**build_rayjob(replace(SPEC, overrides=("train.steps=9",))), "status": RUNNING})
    with pytest.raises(LaunchError, match="another specification"):
        jobs.run(JOB)
    assert methods(server) == ["GET"]


def test_a_restart_of_the_api_server_is_waited_out(server, jobs):
    """Connections refused, then cut, then 503 until it is ready, then 429 with a time to wait."""
    jobs.ensure(JOB)
    server.stop()
    server.faults = [Fault(0, times=3), Fault(503, times=3), Fault(429, times=1, headers={"Retry-After": "1"})]
    play(server, RUNNING, DONE)
    threading.Timer(0.3, server.start).start()
    begin = time.monotonic()
    jobs.wait(NAME, "train", timeout_s=30)
    assert time.monotonic() - begin > 1.2, "Retry-After is kept"
    assert not any(fault.times for fault in server.faults)


def test_a_handshake_that_fails_is_an_outage(server, jobs):
    """A proxy of the API server that restarts answers no TLS for a moment."""
    jobs.ensure(JOB)
    play(server, DONE)
    secure = server.url.replace("http:", "https:")
    jobs.api.configuration.host = secure
    threading.Timer(0.3, setattr, (jobs.api.configuration, "host", server.url)).start()
    jobs.wait(NAME, "train", timeout_s=30)
    with pytest.raises(LaunchError, match="can't be reached"):
        jobs_at(secure).run(JOB)


def test_an_apply_is_repeated_too(server, jobs):
    """A webhook that restarts answers 500 through the API server."""
    said = 'failed calling webhook "mrayjob.kb.io": connection refused'
    server.faults = [Fault(500, times=3, message=said, match=lambda method, _: method == "PATCH")]
    play(server, DONE)
    jobs.run(JOB)
    assert methods(server).count("PATCH") == 4


def test_a_long_outage_says_that_the_job_may_still_run(server, events):
    jobs = jobs_at(server.url, outage_s=0.2)
    jobs.ensure(JOB)
    server.faults = [Fault(503, times=10**6)]
    with pytest.raises(LaunchError) as caught:
        jobs.wait(NAME, "train", timeout_s=30)
    assert "may still run" in caught.value.fix
    assert "trying again" in events()[0], "nobody looks at a silent screen for two minutes"


def test_a_job_deleted_by_someone_else(server, jobs):
    with pytest.raises(LaunchError, match="was deleted"):
        jobs.wait(NAME, "train", timeout_s=30)


@pytest.mark.parametrize(
    ("code", "message", "says"),
    [
        (403, 'rayjobs.ray.io is forbidden: User "x" cannot patch', "does not allow PATCH"),
        (400, 'strict decoding error: unknown field "spec.foo"', "spec.foo"),
        (403, "exceeded quota: count, requested: count/rayjobs.ray.io=1, used: 5, limited: 5", "ResourceQuota"),
        (403, 'admission webhook "v.kb.io" denied the request: localqueue q does not exist', "localqueue q"),
        (409, 'Apply failed with 1 conflict: conflict with "kueue": .spec.suspend', "spec.suspend"),
    ],
)
def test_refusals_say_why(server, jobs, code, message, says):
    def refuse(verb, resource, doc):
        raise Refused(code, "x", message)

    server.admission.append(refuse)
    with pytest.raises(LaunchError) as caught:
        jobs.run(JOB)
    assert says in str(caught.value)
    assert methods(server) == ["GET", "PATCH"], "a refusal is not repeated"


def test_a_cluster_without_kuberay(server, jobs):
    server.resources = [r for r in server.resources if r.group != "ray.io"]
    with pytest.raises(LaunchError, match="knows no RayJob"):
        jobs.run(JOB)


def test_a_namespace_that_is_not_there(server, jobs):
    server.remove("namespaces", "ifas")
    with pytest.raises(LaunchError, match="no namespace ifas"):
        jobs.run(JOB)


def test_connection_refused_by_an_address_that_never_answered():
    port = free_port()
    begin = time.monotonic()
    with pytest.raises(LaunchError, match=f"127.0.0.1:{port} can't be reached"):
        jobs_at(f"http://127.0.0.1:{port}").run(JOB)
    assert time.monotonic() - begin < 5


def sigterm_once(server: ApiServer, then=None) -> None:
    """Sends SIGTERM to this process at the third GET of the job."""
    play(server, RUNNING)
    inner, count = server.before, 0

    def step(method: str, path: str) -> None:
        nonlocal count
        inner(method, path)
        count += method == "GET" and path.endswith(NAME)
        if count == 3:
            count += 1
            if then:
                then()
            os.kill(os.getpid(), signal.SIGTERM)

    server.before = step


def test_sigterm_deletes_the_job(server, jobs):
    sigterm_once(server)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        jobs.run(JOB)
    assert methods(server)[-1] == "DELETE"
    assert server.get("rayjobs", NAME) is None
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_while_the_api_server_is_away(server, jobs):
    """It comes back before the pod's grace period ends: the job is deleted."""
    away = [Fault(0, times=5), Fault(503, times=5)]
    sigterm_once(server, lambda: server.faults.extend(away))
    with pytest.raises(KeyboardInterrupt):
        jobs.run(JOB)
    assert not any(fault.times for fault in away)
    assert server.get("rayjobs", NAME) is None


def test_sigterm_while_the_api_server_stays_away(server):
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "launcher", "uid": "u"}
    jobs = jobs_at(server.url, grace_s=0.5, owner=owner)
    sigterm_once(server, lambda: server.faults.append(Fault(0, times=10**6)))
    begin = time.monotonic()
    with pytest.raises(LaunchError) as caught:
        jobs.run(JOB)
    assert time.monotonic() - begin < 5, "said before the pod is killed"
    assert f"RayJob {NAME} stays and goes on running" in caught.value.what
    assert f"kubectl -n ifas delete rayjob {NAME}" in caught.value.fix
    assert "delete the pod launcher" in caught.value.fix
    assert jobs_at("x").grace_s < 30, "a pod's grace period"


def test_a_job_goes_with_the_pod_that_launched_it(server, tmp_path, monkeypatch):
    """The second line of defence: what a killed launcher can't delete, Kubernetes deletes with its pod."""
    here = tmp_path / "namespace"
    here.write_text("ifas\n")
    monkeypatch.setattr(cluster, "NAMESPACE_FILE", here)
    assert cluster.launching_pod("ifas") is None, "not in a pod of KFP"
    launcher = server.put({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "launcher", "namespace": "ifas"}})
    monkeypatch.setenv("KFP_POD_NAME", "launcher")
    monkeypatch.setenv("KFP_POD_UID", launcher["metadata"]["uid"])
    assert cluster.launching_pod("elsewhere") is None, "Kubernetes would take such an owner for gone"
    jobs_at(server.url).ensure(JOB)

    # The pod is killed; the one that takes its job up owns it from then on, and the old one's end does not end it.
    second = server.put({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "second", "namespace": "ifas"}})
    monkeypatch.setenv("KFP_POD_NAME", "second")
    monkeypatch.setenv("KFP_POD_UID", second["metadata"]["uid"])
    assert jobs_at(server.url).ensure(JOB) is True
    assert server.get("rayjobs", NAME)["spec"] == JOB["spec"]
    server.remove("pods", "launcher")
    assert server.get("rayjobs", NAME) is not None
    server.remove("pods", "second")
    assert server.get("rayjobs", NAME) is None


def test_the_role_grants_what_the_launcher_uses_and_nothing_else(server):
    """Every path of the launcher under the role of infra/base: nothing is refused, and nothing granted is left over."""
    for doc in yaml.safe_load_all((Path(__file__).parents[3] / "infra/base/service-accounts.yaml").read_text()):
        if doc["metadata"]["name"] == "ifas-pipeline-runner":
            server.put({**doc, "metadata": {**doc["metadata"], "namespace": "ifas"}})
    user = "system:serviceaccount:ifas:ifas-pipeline-runner"
    server.tokens["secret"] = user
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}
    jobs = jobs_at(server.url, token="secret", owner=owner)
    put(server, [pod("submitter", **HEALTHY), *STATES["no GPUs"][1]], STATES["quota"][2])
    play(server, INITIALIZING, INITIALIZING, INITIALIZING, FAILED)
    with pytest.raises(LaunchError, match="AppFailed"):
        jobs.run(JOB)
    play(server, FAILED, DONE)
    jobs.run(JOB)
    (role,) = server.items("roles")
    granted = {
        (verb, group, resource)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == server.used[user]
    with pytest.raises(LaunchError, match="does not allow GET"):
        jobs_at(server.url, token="unknown", outage_s=0.1).run(JOB)


def test_no_cluster_configured(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    begin = time.monotonic()
    with pytest.raises(LaunchError, match="no Kubernetes cluster"):
        cluster.connect()
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("next_one", ["Retrying", "Initializing"])
def test_an_attempt_is_not_repeated_where_that_is_futile(server, jobs, next_one):
    retrying = {"jobDeploymentStatus": next_one, "jobStatus": "FAILED" * (next_one == "Retrying"), "failed": 1}
    play(server, RUNNING, retrying, RUNNING, DONE)
    assert not jobs.run(JOB).reattached
    jobs.delete(NAME)
    play(server, RUNNING, retrying, RUNNING, DONE)
    with pytest.raises(LaunchError, match="would fail again"):
        jobs.run(JOB, futile=lambda: True)
    assert server.get("rayjobs", NAME) is None
