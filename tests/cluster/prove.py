"""Proves ifas on a real cluster that has KubeRay: `make cluster-test KUBECONFIG=... IMAGE=...`.

It works in two namespaces of its own, which it removes: one with the local overlay, one with an object store. The store
is SeaweedFS's binary of this machine, copied into a pod of IMAGE, so that nothing but IMAGE is pulled. The kubeconfig
must be that of an administrator. Every row of the table is something that was done on the cluster; a row whose
forerunner failed is not run. What a failed command said is printed in full.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ifas.launch import pods
from ifas.launch.rayjob import job_name
from ifas.launch.reachable import OPERATOR_LABEL, STORE_LABEL
from ifas.launch.survey import selects

ROOT = Path(__file__).parents[2]
MARK = "ifas.dev/cluster-test"
KEY, SECRET, BUCKET = "ifas", "ifas-cluster-test", "ifas"
STEP_LABELS = {"pipelines.kubeflow.org/v2_component": "true"}
CLIENT_LABELS = {"ifas.dev/client": "true"}
PLACE = f"s3://{BUCKET}/cluster-test"

#: Reads SeaweedFS's binary from standard input; put in its place only if it arrived whole.
RECEIVE = """
import hashlib, os, sys
digest = hashlib.sha256()
with open("/scratch/weed.part", "wb") as out:
    while block := sys.stdin.buffer.read(2**20):
        digest.update(block)
        out.write(block)
if digest.hexdigest() != sys.argv[1]:
    sys.exit("arrived damaged")
os.chmod("/scratch/weed.part", 0o755)
os.rename("/scratch/weed.part", "/scratch/weed")
"""

STORE = """
until [ -x /scratch/weed ]; do sleep 1; done
mkdir -p /scratch/data
printf '%s' "$IDENTITIES" > /scratch/s3.json
exec /scratch/weed server -dir=/scratch/data -ip=127.0.0.1 -ip.bind=0.0.0.0 -s3 -s3.config=/scratch/s3.json \
  -s3.port=8333 -s3.port.iceberg=0 -s3.port.lance=0 -master.volumeSizeLimitMB=64 -volume.max=100
"""

BUCKET_SCRIPT = """
import time, botocore.session
from botocore.config import Config
client = botocore.session.Session().create_client("s3", config=Config(s3={"addressing_style": "path"}))
for attempt in range(60):
    try:
        client.create_bucket(Bucket="ifas")
        break
    except client.exceptions.BucketAlreadyOwnedByYou:
        break
    except Exception as error:
        print(f"no bucket yet: {error}", flush=True)
        time.sleep(2)
else:
    raise SystemExit("the bucket could not be made")
"""

#: Several shards, since a shard is captioned by one worker.
PACK = """
from pathlib import Path
from ifas.data.pack import pack
pack("folder", Path("raw"), Path("packed"), name="toy", workers=1, shard_bytes=20_000)
"""

#: What the pods of steps run, in /scratch. `$STORE` is a prefix of the bucket, `$CONFIG` the options of every step.
DATA = """
python -c "$BUCKET_SCRIPT"
python -c "$DRAW"
python -c "$PACK"
ifas data init --registry registry
ifas data publish packed --registry registry
python -c "import glob, s3fs; s3fs.S3FileSystem().put(sorted(glob.glob('raw/*/*/*/*.png'))[0], '$STORE/face.png')"
ifas step ingest $CONFIG --set ingest.registry=registry --set ingest.dataset=toy \
  --output dataset=$STORE/dataset --output lineage=$STORE/lineage-1.json
"""

VALIDATE = """
ifas step validate $CONFIG --input dataset=$STORE/dataset --input captions=$STORE/captions \
  --input lineage=$STORE/lineage-2.json --output validation=$STORE/validation --output lineage=$STORE/lineage-3.json
"""

FINISH = """
D="--input dataset=$STORE/dataset"; C="--input captions=$STORE/captions"; M="--input model=$STORE/model"
LEDGER="--set gate.ledger=sqlite:///ledger.db"
ifas step evaluate $CONFIG $D $C $M --input lineage=$STORE/lineage-4.json --output evaluation=evaluation \
  --output lineage=lineage-5.json
ifas step gate $CONFIG $LEDGER $D $C $M --input evaluation=evaluation --input lineage=lineage-5.json \
  --output candidate=candidate --output lineage=lineage-6.json
ifas step approve $CONFIG $LEDGER --input candidate=candidate --input lineage=lineage-6.json \
  --output approval=approval --output lineage=lineage-7.json
ifas step package $CONFIG $LEDGER $M --input evaluation=evaluation --input approval=approval \
  --input lineage=lineage-7.json --output bento=$STORE/bento --output lineage=$STORE/lineage-8.json
"""

FETCH = """
import s3fs
s3fs.S3FileSystem().get("BENTO", "/bento/fetched", recursive=True)
"""

ASK = """
python -c "import s3fs; s3fs.S3FileSystem().get('$STORE/face.png', 'face.png')"
ifas ask --url $URL face.png
"""

#: Some network plugins need a moment until the policies hold for a new pod.
PROBE = """
import socket, sys, time
for attempt in range(3):
    time.sleep(5)
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()
        print("open")
        break
    except OSError as error:
        said = error
else:
    print("closed:", said)
"""


class Failed(Exception):
    """A row did not hold; the message is all that is known."""


@dataclass
class Row:
    """One line of the table."""

    name: str
    about: str
    run: Callable[[Proof], str]
    needs: tuple[str, ...]
    state: str = "not run"
    seconds: float = 0.0
    detail: str = ""


ROWS: list[Row] = []


def row(name: str, *needs: str) -> Callable[[Callable[[Proof], str]], Callable[[Proof], str]]:
    """Makes a function a row, which runs where all of `needs` held. It returns what is to be said of it."""

    def add(run: Callable[[Proof], str]) -> Callable[[Proof], str]:
        ROWS.append(Row(name, (run.__doc__ or "").splitlines()[0], run, needs))
        return run

    return add


@dataclass
class Client:
    """An `ifas launch run` on this machine."""

    command: list[str]
    log: Path
    process: subprocess.Popen[bytes]

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def last(self) -> str:
        return (self.text().strip().splitlines() or [""])[-1]

    @property
    def over(self) -> bool:
        return self.process.poll() is not None

    def until(self, pattern: str, seconds: float) -> float:
        """Waits for a line; returns after how many seconds it came."""
        begin = time.monotonic()
        while not re.search(pattern, self.text()):
            if time.monotonic() - begin > seconds or self.process.poll() is not None:
                raise Failed(f"$ {' '.join(self.command)}\n{self.text()}\nno line matches {pattern!r}")
            time.sleep(0.5)
        return time.monotonic() - begin

    def ended(self, seconds: float, *codes: int) -> None:
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"$ {' '.join(self.command)}\n{self.text()}\nstill runs after {seconds:.0f} s") from None
        if code not in codes:
            raise Failed(f"$ {' '.join(self.command)}\n{self.text()}\nexit code {code}, not {codes}")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.ended(90, 130)


@dataclass
class Proof:
    """The cluster, and what is done on it.

    Attributes:
        store_binary: SeaweedFS's `weed`.
        patience: seconds that a job may take, with the image to be pulled.
        steps: of the training during which a worker is killed, once there is a checkpoint.
    """

    kubeconfig: Path
    image: str
    scratch: Path
    store_binary: Path
    namespace: str = "ifas-cluster-test"
    patience: float = 1200
    steps: int = 1000
    undo: list[tuple[str, ...]] = field(default_factory=list)
    enforced: bool | None = None
    clients: list[Client] = field(default_factory=list)

    @property
    def store_namespace(self) -> str:
        return f"{self.namespace}-store"

    @property
    def checkpoint_every(self) -> int:
        """Steps between two checkpoints."""
        return max(3, self.steps // 10)

    @property
    def config(self) -> list[str]:
        """Options of every step and job."""
        settings = (
            "train.workers=2",
            f"train.steps={self.steps}",
            f"train.checkpoint_every={self.checkpoint_every}",
        )
        return ["--config", "tiny", *(word for setting in settings for word in ("--set", setting))]

    # Commands.

    def kubectl(
        self, *words: str, stdin: str | bytes | None = None, timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        found = shutil.which("kubectl") or str(Path(sys.executable).with_name("kubectl"))
        command = [found, f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.scratch / 'cache'}", *words]
        data = stdin.encode() if isinstance(stdin, str) else stdin
        try:
            done = subprocess.run(command, input=data, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"$ kubectl {' '.join(words)}\nno answer in {timeout:.0f} s") from error
        if check and done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise Failed(f"$ kubectl {' '.join(words)}\n{said}exit code {done.returncode}")
        return done

    def get(self, *words: str, missing_ok: bool = False) -> dict[str, Any]:
        """What `kubectl get` finds, as an object; empty where there is nothing."""
        extra = ["--ignore-not-found"] if missing_ok else []
        text = self.kubectl("get", *words, *extra, "-o", "json").stdout
        return dict(json.loads(text)) if text.strip() else {}

    def items(self, *words: str) -> list[dict[str, Any]]:
        return list(self.get(*words).get("items", []))

    def apply(self, *docs: dict[str, Any]) -> None:
        text = yaml.safe_dump_all(docs)
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def until(self, what: str, met: Callable[[], bool], seconds: float) -> float:
        begin = time.monotonic()
        while not met():
            if time.monotonic() - begin > seconds:
                raise Failed(f"{what}: not within {seconds:.0f} s\n{self.state()}")
            time.sleep(1)
        return time.monotonic() - begin

    def state(self) -> str:
        """What is in the namespace, for the message of a failure."""
        parts = []
        for words in (
            ("get", "rayjobs.ray.io,rayclusters.ray.io,jobs,pods", "-o", "wide"),
            ("get", "events", "--sort-by=.lastTimestamp"),
        ):
            done = self.kubectl("-n", self.namespace, *words, check=False)
            parts.append(f"$ kubectl {' '.join(words)}\n{(done.stdout + done.stderr).decode(errors='replace')[-6000:]}")
        return "\n".join(parts)

    # Pods of the step image.

    def template(self, script: str, labels: dict[str, str], env: dict[str, str], *, gib: float = 2) -> dict[str, Any]:
        """A pod that runs a shell script in the image, as the pods of steps run: restricted, with the store's key."""
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        template = pods.ray_pod(
            container="step",
            image=self.image,
            labels={**labels, MARK: "true"},
            service_account="ifas-ray",
            env=pods.env({**pods.FIXED_ENV, **env}, "ifas-credentials", keys),
            config_map="ifas-settings",
            resources=pods.resources(cpus=1, memory_gib=gib),
            ports={},
            shm_gib=0,
            scratch_gib=5,
            restart_policy="Never",
        )
        container = template["spec"]["containers"][0]
        # Little is reserved, so that all of it fits beside a RayJob on a laptop's cluster.
        container["resources"]["requests"] = {"cpu": "100m", "memory": "256Mi"}
        container["command"] = ["sh", "-euc", script]
        return template

    def run_step(self, name: str, script: str, env: dict[str, str] | None = None) -> str:
        """Runs a script to its end as a Job; returns its log.

        Raises:
            Failed: with the whole log, or with what the pod waits for.
        """
        settings = {"STORE": PLACE, "CONFIG": " ".join(self.config), "BUCKET_SCRIPT": BUCKET_SCRIPT, **(env or {})}
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"backoffLimit": 0, "template": self.template(script, STEP_LABELS, settings)},
        }
        self.apply(job)

        def over() -> bool:
            status = self.get("-n", self.namespace, "job", name).get("status", {})
            done = {c["type"] for c in status.get("conditions", []) if c["status"] == "True"}
            if "Failed" in done:
                raise Failed(f"job {name} failed:\n{self.log(name)}")
            return "Complete" in done

        self.until(f"job {name}", over, self.patience)
        return self.log(name)

    def log(self, job: str) -> str:
        """What the pods of a job have said; empty where there are none."""
        done = self.kubectl("-n", self.namespace, "logs", f"--selector=job-name={job}", "--tail=-1", check=False)
        return done.stdout.decode(errors="replace")

    def probe(self, name: str, namespace: str, labels: dict[str, str], host: str, port: int) -> bool:
        """Whether a pod with these labels reaches host and port."""
        template = self.template("", labels, {}, gib=0.25)
        spec = template["spec"]
        if namespace != self.namespace:
            # That namespace has neither the account nor the settings.
            spec.pop("serviceAccountName")
            spec["containers"][0].pop("envFrom")
            spec["containers"][0]["env"] = pods.env(pods.FIXED_ENV, "", ())
        spec["containers"][0]["command"] = ["python", "-c", PROBE, host, str(port)]
        meta = {"name": name, "namespace": namespace, "labels": template["metadata"]["labels"]}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

        def over() -> bool:
            return self.get("-n", namespace, "pod", name).get("status", {}).get("phase") in ("Succeeded", "Failed")

        self.until(f"probe {name}", over, 180)
        said = self.kubectl("-n", namespace, "logs", name).stdout.decode()
        self.kubectl("-n", namespace, "delete", "pod", name, "--wait=false")
        if not said.startswith(("open", "closed")):
            raise Failed(f"probe {name} said: {said}")
        return said.startswith("open")

    def flow(self, wanted: bool, name: str, namespace: str, labels: dict[str, str], host: str, port: int) -> str:
        """One line about a connection; Failed where it is not as wanted and policies are enforced."""
        found = self.probe(name, namespace, labels, host, port)
        if found == wanted:
            return f"{name} {'open' if found else 'closed'}"
        if found and self.enforced is False:
            return f"{name} open (nothing enforces policies here)"
        raise Failed(f"{name}: {host}:{port} is {'open' if found else 'closed'} from {namespace} {labels}")

    # RayJobs.

    def words(self, verb: str, step: str, run: str, *more: str, image: str = "") -> list[str]:
        """`ifas launch run` or `render`."""
        ifas = str(Path(sys.executable).with_name("ifas"))
        command = [ifas, "launch", verb, step, "--image", image or self.image, "--run-id", run, *self.config]
        return [*command, "--namespace", self.namespace, *more]

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "IFAS_EVENTS"}
        return {**kept, "KUBECONFIG": str(self.kubeconfig), "IFAS_HOME": str(self.scratch / "home")}

    def launch(self, step: str, run: str, *more: str, image: str = "") -> Client:
        """Starts `ifas launch run` on this machine."""
        command = self.words("run", step, run, *more, image=image)
        log = self.scratch / f"{run}-{len(self.clients)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=self.environment, start_new_session=True)
        self.clients.append(Client(command, log, process))
        return self.clients[-1]

    def apply_changed(self, run: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Applies the RayJob that `train` would, changed. `train` then follows it as its own."""
        command = self.words("render", "train", run, *self.training(run))
        done = subprocess.run(command, env=self.environment, capture_output=True, check=False)
        if done.returncode:
            raise Failed(f"$ {' '.join(command)}\n{(done.stdout + done.stderr).decode(errors='replace')}")
        job = yaml.safe_load(done.stdout)
        change(job)
        self.apply(job)

    def training(self, out: str) -> list[str]:
        files = _io("dataset captions validation", "3", "model", "4")
        return [word.replace("/model", f"/model-{out}" if out else "/model") for word in files]

    def caption(self, run: str) -> Client:
        return self.launch("caption", run, *_io("dataset", "1", "captions", "2"))

    def train(self, run: str, *more: str, out: str = "", image: str = "") -> Client:
        return self.launch("train", run, *self.training(out), *more, image=image)

    def rayjob(self, step: str, run: str) -> dict[str, Any]:
        return self.get("-n", self.namespace, "rayjobs.ray.io", job_name(step, run), missing_ok=True)

    def running(self, step: str, run: str) -> bool:
        return bool(self.rayjob(step, run).get("status", {}).get("jobStatus") == "RUNNING")

    def until_training(self, client: Client, run: str) -> None:
        self.until("the training runs", lambda: client.over or self.running("train", run), self.patience)

    def steps_done(self, run: str) -> int:
        """Steps of the training, as far as its log tells them."""
        told = [line for line in self.log(job_name("train", run)).splitlines() if '"kind": "progress"' in line]
        return max((int(re.search(r'"done": (\d+)', line)[1]) for line in told if '"unit": "steps"' in line), default=0)

    def ray_pods(self, step: str, run: str, kind: str) -> list[dict[str, Any]]:
        selector = f"ifas.dev/job={job_name(step, run)},ray.io/node-type={kind}"
        return self.items("-n", self.namespace, "pods", "-l", selector)

    def gone(self, step: str, run: str) -> str:
        """Waits until the job and its pods are gone."""
        selector = f"ifas.dev/job={job_name(step, run)}"
        took = self.until(f"RayJob of {run} is gone", lambda: not self.rayjob(step, run), 90)
        took += self.until(
            f"pods of {run} are gone", lambda: not self.items("-n", self.namespace, "pods", "-l", selector), 180
        )
        return f"job and pods gone after {took:.0f} s"


def _io(inputs: str, before: str, output: str, after: str) -> list[str]:
    words = [word for name in inputs.split() for word in ("--input", f"{name}={PLACE}/{name}")]
    words += ["--input", f"lineage={PLACE}/lineage-{before}.json"]
    return [*words, "--output", f"{output}={PLACE}/{output}", "--output", f"lineage={PLACE}/lineage-{after}.json"]


@row("cluster")
def cluster(proof: Proof) -> str:
    """The API server answers, and KubeRay's operator runs."""
    version = json.loads(proof.kubectl("version", "-o", "json").stdout)["serverVersion"]["gitVersion"]
    selector = "app.kubernetes.io/name in (kuberay-operator,kuberay),!ray.io/cluster"
    operators = proof.items("pods", "--all-namespaces", "-l", selector)
    if not operators:
        raise Failed(f"no pod has a label {selector}: install KubeRay's operator")
    where = operators[0]["metadata"]["namespace"]
    labels = proof.get("namespace", where)["metadata"].get("labels") or {}
    if labels.get(OPERATOR_LABEL) != "true":
        proof.kubectl("label", "namespace", where, f"{OPERATOR_LABEL}=true", "--overwrite")
        proof.undo.append(("label", "namespace", where, f"{OPERATOR_LABEL}-"))
    image = operators[0]["spec"]["containers"][0].get("image", "?")
    return f"Kubernetes {version}, {image} in {where}"


@row("overlay", "cluster")
def overlay(proof: Proof) -> str:
    """The local overlay is admitted, in a namespace of its own."""
    folder = proof.scratch / "overlay"
    folder.mkdir(exist_ok=True)
    endpoint = f"http://store.{proof.store_namespace}.svc:8333"
    patches = [
        {
            "target": {"kind": "Namespace"},
            "patch": yaml.safe_dump(
                [{"op": "add", "path": f"/metadata/labels/{MARK.replace('/', '~1')}", "value": "true"}]
            ),
        },
        {
            "target": {"kind": "ConfigMap", "name": "ifas-settings"},
            "patch": yaml.safe_dump([{"op": "replace", "path": "/data/AWS_ENDPOINT_URL", "value": endpoint}]),
        },
    ]
    body = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": proof.namespace,
        "resources": [os.path.relpath(ROOT / "infra" / "overlays" / "local", folder.resolve())],
        "patches": patches,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(body))
    for attempt in range(3):
        done = proof.kubectl("apply", "--server-side", "--validate=strict", "-k", str(folder), check=attempt == 2)
        if done.returncode == 0:
            break
        # A namespace that is a moment old may not take its objects yet.
        time.sleep(2)
    data = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "IFAS_LEDGER": "sqlite:////tmp/ledger.db"}
    meta = {"name": "ifas-credentials", "namespace": proof.namespace}
    proof.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data})
    return f"{len(done.stdout.splitlines())} objects in {proof.namespace}"


@row("store", "overlay")
def store(proof: Proof) -> str:
    """An object store in the cluster, from this machine's binary."""
    _same_machines(proof)
    labels = {MARK: "true", STORE_LABEL: "true", **CLIENT_LABELS}
    identity = {
        "name": KEY,
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    template = proof.template(STORE, {"app": "store"}, {"IDENTITIES": json.dumps({"identities": [identity]})})
    spec = template["spec"]
    spec.pop("serviceAccountName")
    spec["volumes"] = [{"name": v["name"], "emptyDir": {}} for v in spec["volumes"]]
    container = spec["containers"][0]
    container.pop("envFrom")
    container["env"] = [item for item in container["env"] if "valueFrom" not in item]
    container["ports"] = [{"name": "s3", "containerPort": 8333}]
    container["readinessProbe"] = {"tcpSocket": {"port": "s3"}, "periodSeconds": 2, "failureThreshold": 3}
    where = {"name": "store", "namespace": proof.store_namespace}
    proof.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": proof.store_namespace, "labels": labels}}
    )
    service = {"selector": {"app": "store"}, "ports": [{"name": "s3", "port": 8333, "targetPort": "s3"}]}
    pod_meta = {**where, "labels": template["metadata"]["labels"]}
    for attempt in range(10):
        # The namespace's default service account is made a moment after the namespace.
        try:
            proof.apply(
                {"apiVersion": "v1", "kind": "Pod", "metadata": pod_meta, "spec": spec},
                {"apiVersion": "v1", "kind": "Service", "metadata": where, "spec": service},
            )
            break
        except Failed as failure:
            if "serviceaccount" not in str(failure) or attempt == 9:
                raise
            time.sleep(2)

    def started() -> bool:
        phase = proof.get("-n", proof.store_namespace, "pod", "store")["status"].get("phase")
        return bool(phase == "Running")

    proof.until("the store's pod runs", started, proof.patience)
    data = proof.store_binary.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    command = ("exec", "-i", "-n", proof.store_namespace, "store", "--", "python", "-c", RECEIVE, digest)
    for attempt in range(3):
        done = proof.kubectl(*command, stdin=data, timeout=600, check=attempt == 2)
        if done.returncode == 0:
            break
    try:
        proof.kubectl("-n", proof.store_namespace, "wait", "pod/store", "--for=condition=Ready", "--timeout=100s")
    except Failed as failure:
        log = proof.kubectl("-n", proof.store_namespace, "logs", "store", "--tail=50", check=False)
        raise Failed(f"{failure}\n{(log.stdout + log.stderr).decode(errors='replace')}") from failure
    return f"{len(data) / 2**20:.0f} MiB copied into a pod"


def _same_machines(proof: Proof) -> None:
    """Raises Failed where this machine's binary can run on no node."""
    machine = platform.machine().lower()
    here = (sys.platform, {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine))
    nodes = [node["status"]["nodeInfo"] for node in proof.items("nodes")]
    there = {(node["operatingSystem"], node["architecture"]) for node in nodes}
    if here not in there:
        said = ", ".join(sorted("/".join(one) for one in there))
        raise Failed(f"the nodes are {said}, this machine is {'/'.join(here)}: run it on a machine like the nodes")


@row("ready", "store")
def ready(proof: Proof) -> str:
    """`ifas cluster check` finds nothing missing that these rows need."""
    ifas = str(Path(sys.executable).with_name("ifas"))
    command = [ifas, "cluster", "check", "--json", "--config", "tiny", "--namespace", proof.namespace]
    environment = {**os.environ, "KUBECONFIG": str(proof.kubeconfig)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise Failed(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}") from None
    # The ledger is a file here, on purpose, and Kubeflow Pipelines is not needed.
    bad = [f for f in found if f["state"] == "missing" and f["check"] not in ("ledger", "pipelines", "GPUs")]
    if bad:
        raise Failed("\n".join(f"{f['check']}: {f['what']} (fix: {f['fix']})" for f in bad))
    rest = [f"{f['check']}: {f['what']}" for f in found if f["state"] != "ok"]
    return f"{len(found)} findings; not ok but not needed: {'; '.join(rest) or 'none'}"


@row("rbac", "overlay")
def rbac(proof: Proof) -> str:
    """Each account may do what its role says, and nothing more."""
    jobs, runner = "rayjobs.ray.io", "ifas-pipeline-runner"
    allowed = [(runner, verb, jobs, "") for verb in ("create", "patch", "get", "delete")]
    allowed += [(runner, "list", "pods", ""), (runner, "list", "events", ""), (runner, "get", "pods", "log")]
    # Of KFP's own containers. Of a kind that a cluster lacks, `can-i` forgets the group, and says no.
    results = "workflowtaskresults.argoproj.io"
    if proof.get("customresourcedefinitions", results, missing_ok=True):
        allowed += [(runner, verb, results, "") for verb in ("create", "patch")]
    allowed += [
        (runner, "get", "configmaps/kfp-launcher", ""),
        (runner, "get", "secrets/mlpipeline-minio-artifact", ""),
    ]
    denied = [(runner, verb, jobs, "") for verb in ("watch", "update", "deletecollection")]
    denied += [(runner, verb, "pods", "") for verb in ("create", "delete", "get")]
    denied += [(runner, "create", "pods", "exec"), (runner, "get", "secrets", ""), (runner, "list", "secrets", "")]
    denied += [(runner, "create", "rolebindings.rbac.authorization.k8s.io", "")]
    for account in ("ifas-ray", "ifas-ray-autoscaler", "ifas-serving"):
        denied += [
            (account, verb, kind, "") for verb in ("get", "list", "create") for kind in (jobs, "pods", "secrets")
        ]
    wrong = []
    for wanted, checks in (("yes", allowed), ("no", denied)):
        for account, verb, kind, sub in checks:
            words = ["auth", "can-i", verb, kind, "-n", proof.namespace]
            words += [f"--as=system:serviceaccount:{proof.namespace}:{account}"]
            words += [f"--subresource={sub}"] if sub else []
            done = proof.kubectl(*words, check=False)
            said = done.stdout.decode().strip().splitlines()
            if not said or said[0].split()[0] != wanted:
                text = (done.stdout + done.stderr).decode(errors="replace")
                wrong.append(f"$ kubectl {' '.join(words)}\n{text}wanted: {wanted}")
    if wrong:
        raise Failed("\n".join(wrong))
    return f"{len(allowed)} granted, {len(denied)} refused"


@row("told: image", "overlay")
def told_image(proof: Proof) -> str:
    """An image that can't be pulled is told."""
    image = "registry.invalid/nothing:1"
    return _told(proof, "told-image", f"waiting for the image {image}", image=image)


@row("told: nodes", "overlay")
def told_nodes(proof: Proof) -> str:
    """Workers that fit on no node are told."""
    sizes = ("--set", "cluster.train.worker_cpus=4000", "--set", "cluster.train.worker_memory_gib=1.5")
    return _told(proof, "told-nodes", r"waiting for .*(Insufficient cpu|have cpu free)", *sizes)


@row("told: quota", "overlay")
def told_quota(proof: Proof) -> str:
    """A quota that is used up is told."""
    meta = {"name": "cluster-test", "namespace": proof.namespace}
    proof.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": {"pods": "0"}}})
    try:
        proof.until(
            "the quota counts",
            lambda: "hard" in proof.get("-n", proof.namespace, "resourcequota", "cluster-test").get("status", {}),
            60,
        )
        return _told(proof, "told-quota", "waiting for quota since .*exceeded quota")
    finally:
        proof.kubectl("-n", proof.namespace, "delete", "resourcequota", "cluster-test", check=False)


@row("told: secret", "overlay")
def told_secret(proof: Proof) -> str:
    """A Secret that is missing is told."""
    secret = proof.get("-n", proof.namespace, "secret", "ifas-credentials")
    kept = {name: secret[name] for name in ("apiVersion", "kind", "data")}
    meta = {"name": "ifas-credentials", "namespace": proof.namespace}
    proof.kubectl("-n", proof.namespace, "delete", "secret", "ifas-credentials")
    try:
        # The kubelet looks for it when it has the image.
        pattern = 'to start since .*secret "ifas-credentials" not found'
        return _told(proof, "told-secret", pattern, pull=proof.patience)
    finally:
        proof.apply({**kept, "metadata": meta})


@row("told: submitter", "overlay")
def told_submitter(proof: Proof) -> str:
    """A submitter that fits on no node is told, while head and workers run."""

    def enlarge(job: dict[str, Any]) -> None:
        template = job["spec"]["submitterPodTemplate"]
        for resources in template["spec"]["containers"][0]["resources"].values():
            resources["cpu"] = "4000"

    run = "told-submitter"
    proof.apply_changed(run, enlarge)
    # KubeRay makes the submitter when head and workers have their image and are ready.
    return _told(
        proof, run, r"waiting for a node for the submitter .*(Insufficient cpu|have cpu free)", pull=proof.patience
    )


def _told(proof: Proof, run: str, pattern: str, *more: str, image: str = "", pull: float = 0) -> str:
    client = proof.train(run, *more, out=run, image=image)
    client.until("RayJob .*: (not seen|initializing|waiting|submitting)", 60)
    # Half a minute from when it is so, and KubeRay and the kubelet need some of their own to get there.
    took = client.until(pattern, pull + 120)
    line = next(text for text in client.text().splitlines() if re.search(pattern, text))
    client.interrupt()
    proof.gone("train", run)
    return f"after {took:.0f} s: {line.split(': ', 1)[-1][:160]}"


@row("data", "store")
def data(proof: Proof) -> str:
    """A pod makes a dataset and keeps it in the store."""
    draw = (ROOT / "tests" / "toy_dataset.py").read_text() + "\nfrom pathlib import Path\nmake(Path('raw'))\n"
    proof.run_step("data", DATA, {"DRAW": draw, "PACK": PACK})
    return f"{PLACE}/dataset"


@row("captions", "data")
def captions(proof: Proof) -> str:
    """Captioning as a RayJob by both of its workers; its client is killed, and the next one takes the job up."""
    first = proof.caption("captions")
    proof.until("the RayJob starts", lambda: "status" in proof.rayjob("caption", "captions"), 120)
    first.process.kill()
    first.process.wait()
    if not proof.rayjob("caption", "captions"):
        raise Failed("the RayJob went with its client")
    second = proof.caption("captions")
    workers, log = 0, ""
    begin = time.monotonic()
    while not second.over and time.monotonic() - begin < proof.patience:
        there = [p for p in proof.ray_pods("caption", "captions", "worker") if p["status"].get("phase") == "Running"]
        workers = max(workers, len(there))
        log = proof.log(job_name("caption", "captions")) or log  # it goes with the job
        time.sleep(2)
    second.ended(5, 0)
    if "is already there: watching it" not in second.text():
        raise Failed(f"the second client did not take the job up:\n{second.text()}")
    if workers < 2:
        raise Failed(f"{workers} workers ran, not 2")
    # A worker has a CPU for one actor, and the head has none.
    told = re.search(r"shards captioned: \d+ \(actors: (\d+), nodes: \d+\)", log)
    if not told or int(told[1]) < 2:
        raise Failed(f"not both workers captioned:\n{log}")
    return f"{told[0]}; {second.last()}"


@row("validate", "captions")
def validate(proof: Proof) -> str:
    """A pod validates what the RayJob stored."""
    proof.run_step("validate", VALIDATE)
    return f"{PLACE}/validation"


@row("training", "validate")
def training(proof: Proof) -> str:
    """Training as a RayJob with two workers, one of which is killed: it goes on from its last checkpoint."""
    client = proof.train("training")
    every = proof.checkpoint_every
    # The checkpoint is written while the next steps run.
    proof.until("a checkpoint", lambda: client.over or proof.steps_done("training") >= 2 * every, 2 * proof.patience)
    before = proof.ray_pods("train", "training", "worker")
    if client.over or len(before) != 2:
        raise Failed(f"{len(before)} workers when one was to be killed; the client says:\n{client.text()}")
    victim = before[0]["metadata"]["name"]
    proof.kubectl("-n", proof.namespace, "delete", "pod", victim, "--grace-period=0", "--force", "--wait=false")
    names: set[str] = set()
    log = ""
    begin = time.monotonic()
    while not client.over and time.monotonic() - begin < proof.patience:
        names |= {pod["metadata"]["name"] for pod in proof.ray_pods("train", "training", "worker")}
        log = proof.log(job_name("train", "training")) or log  # it goes with the job
        time.sleep(1)
    client.ended(5, 0)
    new = names - {pod["metadata"]["name"] for pod in before}
    if not new:
        why = "no worker took the place of it, or the training ended before: raise --steps"
        raise Failed(f"{victim} was killed; {why}\n{client.text()}")
    resumed = re.search(r"continues after step (\d+)", log)
    if not resumed or int(resumed[1]) < every:
        raise Failed(f"the training did not go on from its last checkpoint:\n{log[-6000:]}")
    return f"{victim} killed, {', '.join(sorted(new))} took its place; {resumed[0]}; {client.last()}"


@row("policies", "validate")
def policies(proof: Proof) -> str:
    """Only whom the policies name reaches the store and Ray's job API; then a cancelled job is gone."""
    client = proof.train("cancelled", "--set", f"train.steps={20 * proof.steps}", out="cancelled")
    proof.until_training(client, "cancelled")
    store_at = proof.get("-n", proof.store_namespace, "service", "store")["spec"]["clusterIP"]
    heads = proof.ray_pods("train", "cancelled", "head")
    if not heads:
        raise Failed(f"the head is gone:\n{client.text()}")
    head = heads[0]["status"]["podIP"]
    here, there = proof.namespace, proof.store_namespace
    # default-deny closes this one; where it is open, nothing enforces policies.
    proof.enforced = not proof.probe("stranger-to-store", here, {}, store_at, 8333)
    lines = [f"policies are {'enforced' if proof.enforced else 'NOT enforced by this network plugin'}"]
    lines.append(proof.flow(True, "step-to-store", here, STEP_LABELS, store_at, 8333))
    lines.append(proof.flow(False, "stranger-to-ray", here, {}, head, 8265))
    lines.append(proof.flow(False, "elsewhere-to-ray", there, {}, head, 8265))
    lines.append(proof.flow(False, "step-to-ray", here, STEP_LABELS, head, 8265))
    if client.over:
        raise Failed(f"the training ended before it was cancelled: raise --steps\n{client.text()}")
    client.interrupt()
    lines.append(f"cancelled: {proof.gone('train', 'cancelled')}")
    return "; ".join(lines)


@row("bento", "training")
def bento(proof: Proof) -> str:
    """A pod evaluates, approves by policy and packages, which calls uv, without a writable root."""
    return proof.run_step("finish", FINISH).strip().splitlines()[-1][:160]


@row("served", "bento")
def served(proof: Proof) -> str:
    """The Bento is served under the overlay's own Deployment, and answers a client and nobody else."""
    patch = _serving(proof)
    rule = {
        "podSelector": {"matchLabels": {"app.kubernetes.io/component": "serving"}},
        "policyTypes": ["Egress"],
        "egress": [{}],
    }
    # Only here, where the Bento is fetched: in production it is in the image.
    meta = {"name": "cluster-test-fetch", "namespace": proof.namespace}
    proof.apply({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": rule})
    words = ("-n", proof.namespace, "patch", "deployment", "ifas-serving", "--type=strategic", "-p", json.dumps(patch))
    proof.kubectl(*words)

    def available() -> bool:
        status = proof.get("-n", proof.namespace, "deployment", "ifas-serving").get("status", {})
        return bool(status.get("readyReplicas"))

    took = proof.until("the model is served", available, 600)
    service = proof.get("-n", proof.namespace, "service", "ifas-serving")["spec"]["clusterIP"]
    lines = [proof.flow(True, "client-to-model", proof.namespace, CLIENT_LABELS, service, 80)]
    lines.append(proof.flow(True, "client-elsewhere-to-model", proof.store_namespace, CLIENT_LABELS, service, 80))
    lines.append(proof.flow(False, "stranger-to-model", proof.store_namespace, {}, service, 80))
    url = f"http://ifas-serving.{proof.namespace}.svc"
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "ask", "namespace": proof.namespace},
        "spec": {
            "backoffLimit": 0,
            "template": proof.template(ASK, {**STEP_LABELS, **CLIENT_LABELS}, {"STORE": PLACE, "URL": url}),
        },
    }
    proof.apply(job)

    def answered() -> bool:
        status = proof.get("-n", proof.namespace, "job", "ask").get("status", {})
        return any(c["status"] == "True" for c in status.get("conditions", []) if c["type"] in ("Complete", "Failed"))

    proof.until("the client's answer", answered, 300)
    said = proof.log("ask")
    if not re.search(r"\b(live|spoof)\b", said):
        raise Failed(f"the client got no verdict:\n{said}")
    return f"ready after {took:.0f} s; {'; '.join(lines)}; {said.strip().splitlines()[-1][:100]}"


def _serving(proof: Proof) -> dict[str, Any]:
    """The overlay's Deployment with a Bento that is fetched, as there is no image with it."""
    template = proof.template("", {}, {})
    fetch = {
        **template["spec"]["containers"][0],
        "name": "fetch",
        "command": ["python", "-c", FETCH.replace("BENTO", f"{PLACE}/bento")],
        "workingDir": "/tmp",
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "bento", "mountPath": "/bento"}],
    }
    fetch["env"] = [item for item in fetch["env"] if item["name"] != "IFAS_HOME"] + [
        {"name": "IFAS_HOME", "value": "/tmp/ifas"}
    ]
    serve = ["python", "-m", "bentoml", "serve", "/bento/fetched/bento", "--host", "0.0.0.0", "--port", "3000"]
    container = {
        "name": "bento",
        "image": proof.image,
        "command": serve,
        "volumeMounts": [{"name": "bento", "mountPath": "/bento", "readOnly": True}],
    }
    spec = {
        "initContainers": [fetch],
        "containers": [container],
        "volumes": [{"name": "bento", "emptyDir": {"sizeLimit": "2Gi"}}],
    }
    return {"spec": {"replicas": 1, "template": {"spec": spec}}}


def remove(proof: Proof) -> None:
    """Removes what the rows made; nothing of anybody else."""
    for client in proof.clients:
        if not client.over:
            client.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.process.wait(60)
    for name in (proof.namespace, proof.store_namespace):
        found = proof.get("namespace", name, missing_ok=True)
        if not found:
            continue
        if not selects({"matchLabels": {MARK: "true"}}, found["metadata"].get("labels") or {}):
            raise Failed(f"namespace {name} is not of a cluster test (it has no label {MARK}): it is left alone")
        # RayJobs first: their finalizer needs the operator, which finds nothing in a namespace that is half gone.
        if name == proof.namespace:
            words = ("-n", name, "delete", "rayjobs.ray.io", "--all", "--wait=true", "--timeout=120s")
            proof.kubectl(*words, timeout=150, check=False)
        proof.kubectl("delete", "namespace", name, "--wait=true", "--timeout=280s", timeout=300)
    for words in proof.undo:
        proof.kubectl(*words, check=False)


def prove(proof: Proof, *, keep: bool = False, only: tuple[str, ...] = ()) -> list[Row]:
    """Runs every row and returns them with their outcome."""
    rows = [Row(r.name, r.about, r.run, r.needs) for r in ROWS if not only or r.name in only]
    last = Row("removed", "Nothing is left of it.", _removed, ())
    remove(proof)
    held: set[str] = set()
    try:
        for each in rows:
            lacking = [name for name in each.needs if name not in held]
            if lacking:
                each.detail = f"needs {', '.join(lacking)}"
                print(f"== {each.name}: not run, {each.detail}", flush=True)
            else:
                _try(each, proof)
                held |= {each.name} if each.state == "ok" else set()
    finally:
        if keep:
            print(f"kept: namespaces {proof.namespace} and {proof.store_namespace}", flush=True)
        else:
            _try(last, proof)
    return rows if keep else [*rows, last]


def _removed(proof: Proof) -> str:
    remove(proof)
    return f"namespaces {proof.namespace} and {proof.store_namespace}"


def _try(each: Row, proof: Proof) -> None:
    print(f"== {each.name}: {each.about}", flush=True)
    begin = time.monotonic()
    try:
        each.detail = each.run(proof)
        each.state = "ok"
    except Exception as error:  # noqa: BLE001 - one row must not keep the others from being tried
        each.state, each.detail = "FAILED", (str(error).strip().splitlines() or [repr(error)])[-1]
        print(error if isinstance(error, Failed) else traceback.format_exc(), flush=True)
    each.seconds = time.monotonic() - begin
    print(f"   {each.state} in {each.seconds:.0f} s: {each.detail}", flush=True)


def table(rows: list[Row]) -> str:
    wide = max(len(each.name) for each in rows)
    lines = [f"{'':<8}{'row':<{wide}}  {'s':>5}  what"]
    lines += [f"{r.state:<8}{r.name:<{wide}}  {r.seconds:>5.0f}  {r.about} {r.detail}" for r in rows]
    return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.prove", description=__doc__.splitlines()[0])
    parser.add_argument("--kubeconfig", type=Path, required=True, help="of an administrator")
    parser.add_argument("--image", required=True, help="of the Dockerfile, which the nodes have or can pull")
    parser.add_argument("--namespace", default="ifas-cluster-test")
    parser.add_argument("--steps", type=int, default=1000, help="of the training; more if it ends before a kill")
    parser.add_argument("--patience", type=float, default=1200, help="seconds that one job may take")
    parser.add_argument("--keep", action="store_true", help="leave the namespaces for a look")
    given = parser.parse_args(words)
    weed = Path(sys.executable).with_name("weed")
    with tempfile.TemporaryDirectory(prefix="ifas-cluster-test-") as scratch:
        proof = Proof(
            kubeconfig=given.kubeconfig.resolve(),
            image=given.image,
            scratch=Path(scratch).resolve(),
            store_binary=weed.resolve(),
            namespace=given.namespace,
            patience=given.patience,
            steps=given.steps,
        )
        try:
            rows = prove(proof, keep=given.keep)
        except Failed as failure:
            print(failure, file=sys.stderr)
            return 1
    print(table(rows))
    return 0 if all(each.state == "ok" for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
