"""A Ray cluster of several machines on this one: nodes that share no folder, and a head without CPUs.

Each node has a mount and a process namespace of its own. The same path, `disk`, is another empty file system in each:
`IFAS_HOME`, temporary files and Ray's files lie there. They meet over loopback, each at its own address. What only they
share is what they have of this checkout and of the interpreter, as containers of one image do.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.servers import free_port

#: Everything in the namespaces ends with its first process, and that with `unshare`.
NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
OBJECT_STORE = 80 * 2**20


def refused() -> str:
    """Why there can be no such nodes here; empty where there can."""
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        return "unshare and nsenter (util-linux) are not installed"
    tried = subprocess.run([*NAMESPACES, "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True, text=True)
    return "" if tried.returncode == 0 else f"this user may not make namespaces: {tried.stderr.strip()}"


@dataclass
class Node:
    """One machine. `root` is its first process, as this process sees it."""

    address: str
    process: subprocess.Popen[bytes]
    disk: Path
    env: Mapping[str, str]

    @property
    def root(self) -> psutil.Process:
        until = time.monotonic() + 10
        while not (found := psutil.Process(self.process.pid).children()):
            assert time.monotonic() < until, f"no process at {self.address}"
            time.sleep(0.05)
        return found[0]

    def start(self, command: Sequence[str], out: Path, **env: str) -> subprocess.Popen[bytes]:
        """Starts a command on this machine; its output goes to `out`, on this one."""
        inside = ["nsenter", "--target", str(self.root.pid), "--mount", "--pid", f"--wd={self.disk}", *command]
        with out.open("ab") as log:
            return subprocess.Popen(inside, env={**self.env, **env}, stdout=log, stderr=log)

    def run(self, *command: str) -> str:
        """What a command prints on this machine."""
        inside = ["nsenter", "--target", str(self.root.pid), "--mount", "--pid", f"--wd={self.disk}", *command]
        return subprocess.run(inside, env=dict(self.env), check=True, capture_output=True, text=True).stdout

    def workers(self, name: str) -> list[psutil.Process]:
        """Ray's processes on this machine whose name holds `name`."""
        found = []
        for one in self.root.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # processes come and go
                found += [one] * (name in " ".join(one.cmdline()[:1]))
        return found

    def kill(self) -> None:
        """The machine is gone, with all that ran on it."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()


@dataclass
class Cluster:
    """A head and its nodes."""

    disk: Path
    env: dict[str, str]
    logs: Path
    port: int = field(default_factory=free_port)
    nodes: list[Node] = field(default_factory=list)

    @property
    def head(self) -> Node:
        return self.nodes[0]

    def add(self, cpus: int, **env: str) -> Node:
        """Starts one more machine, the first one as the head, with further environment variables."""
        address = f"127.0.0.{len(self.nodes) + 2}"  # for 127.0.0.1, Ray would take an address that others reach
        to = ["--head", f"--port={self.port}", "--include-dashboard=false"]
        if self.nodes:
            to = [f"--address={self.head.address}:{self.port}"]
        ray = [str(Path(sys.executable).with_name("ray")), "start", *to, f"--num-cpus={cpus}", "--block"]
        ray += [f"--node-ip-address={address}", f"--object-store-memory={OBJECT_STORE}", "--disable-usage-stats"]
        ray += ["--min-worker-port=0", "--max-worker-port=0"]
        script = (
            f"mount -t tmpfs none {self.disk} && mount -t tmpfs none /dev/shm && cd {self.disk} && mkdir tmp && "
            '"$@" & wait'
        )
        env = {**self.env, **env}
        with (self.logs / f"{address}.log").open("ab") as log:
            command = [*NAMESPACES, "sh", "-c", script, "sh", *ray]
            process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        node = Node(address, process, self.disk, {**env, "RAY_ADDRESS": f"127.0.0.2:{self.port}"})
        self.nodes.append(node)
        return node

    def wait(self, seconds: float = 120) -> None:
        """Until all machines that run have joined."""
        alive = sum(node.process.poll() is None for node in self.nodes)
        ask = "import ray; ray.init(log_to_driver=False); print(sum(node['Alive'] for node in ray.nodes()))"
        until = time.monotonic() + seconds
        while True:
            try:
                if int(self.head.run(sys.executable, "-c", ask).split()[-1]) == alive:
                    return
            except subprocess.CalledProcessError:
                pass
            assert time.monotonic() < until, "\n".join(log.read_text()[-2000:] for log in self.logs.glob("*.log"))
            time.sleep(1)


@contextmanager
def cluster(logs: Path, env: Mapping[str, str], nodes: int, cpus: int = 1) -> Iterator[Cluster]:
    """A head without CPUs and `nodes` machines with `cpus` each; all are killed at the end."""
    # Short: the path of a socket has at most 107 bytes.
    disk = Path(tempfile.mkdtemp(prefix="disk", dir="/tmp"))
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    settings = {
        **kept,
        "HOME": str(disk),
        "TMPDIR": f"{disk}/tmp",
        "IFAS_HOME": f"{disk}/ifas",
        "RAY_TMPDIR": str(disk),
        "RAY_AUTH_TOKEN": "of-this-test" * 4,
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "DS_ACCELERATOR": "cpu",
        **env,
    }
    made = Cluster(disk, settings, logs)
    try:
        made.add(0)
        for _ in range(nodes):
            made.add(cpus)
        made.wait()
        yield made
    finally:
        for node in reversed(made.nodes):
            node.kill()
        shutil.rmtree(disk)
