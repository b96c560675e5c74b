"""A local Ray: started for real, its sockets and files inspected."""

import ipaddress
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from ifas.compute.connection import connected
from ifas.core.errors import ConfigError

MEMORY = 80 * 2**20
#: A driver of its own, with or without the token.
STRANGER = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False)
print("run:", ray.get(ray.remote(lambda: 6 * 7).remote()))
"""


def sockets_of(processes: list[psutil.Process], kind: str) -> list[Any]:
    """Sockets of all that are still there: spare workers of Ray come and go."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found += process.net_connections(kind)
    return found


def is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def stranger(address: str, **env: str) -> "subprocess.CompletedProcess[str]":
    # The one try: Ray would ask a second time for each second of its patience.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    env = {**kept, "RAY_NUM_REDIS_GET_RETRIES": "1", **env}
    command = [sys.executable, "-c", STRANGER, address]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_only_this_machine_reaches_it_and_only_who_has_the_token() -> None:
    before = dict(os.environ)
    others = {child.pid for child in psutil.Process().children(recursive=True)}  # servers of other tests
    with connected(cpus=1, object_store=MEMORY, settings={"IFAS_TEST": "1"}, worker_env={"IFAS_WORKER": "2"}):
        assert os.environ["IFAS_TEST"] == "1"
        pid, there = ray.get(ray.remote(lambda: (os.getpid(), os.environ["IFAS_WORKER"])).remote())
        assert pid != os.getpid()
        assert there == "2"
        started = [child for child in psutil.Process().children(recursive=True) if child.pid not in others]
        everyone = [psutil.Process(), *started]
        listening = [one.laddr.ip for one in sockets_of(everyone, "inet") if one.status == psutil.CONN_LISTEN]
        assert len(listening) > 5
        assert all(map(is_loopback, listening)), listening

        folder = Path(os.environ["RAY_TMPDIR"])
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        sockets = [str(one.laddr) for one in sockets_of(started, "unix")]
        assert any("raylet" in name for name in sockets)
        assert all(Path(name).is_relative_to(folder) for name in sockets if name.startswith("/")), sockets

        address, token = ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN"]
        for refused in (stranger(address), stranger(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="x" * 64)):
            assert refused.returncode, refused.stdout
            assert "InvalidAuthToken" in refused.stderr
        assert stranger(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token).stdout == "run: 42\n"
    assert not ray.is_initialized()
    assert dict(os.environ) == before


def test_a_start_that_fails_leaves_the_environment_as_it_was() -> None:
    before = dict(os.environ)
    with pytest.raises(ValueError, match="object store"), connected(cpus=1, object_store=1):
        pass
    assert not ray.is_initialized()
    assert dict(os.environ) == before


@pytest.fixture
def short_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of temporary files, short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="i") as name:
        monkeypatch.setattr("tempfile.tempdir", name)
        yield Path(name)


def test_sockets_fit_where_the_folder_of_temporary_files_has_a_long_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / "job.1234567.of.a.batch.system"
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    asked: list[str] = []
    monkeypatch.setattr("ray.init", lambda **_: asked.append(os.environ["RAY_TMPDIR"]))
    with connected(cpus=1, object_store=MEMORY):
        pass
    assert len(f"{asked[0]}/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store") <= 107
    assert stat.S_IMODE(Path(asked[0]).stat().st_mode) == 0o700
    assert not [*long.iterdir()]


def test_a_folder_that_others_can_enter_is_refused(short_folder: Path) -> None:
    folder = short_folder / f"ifas-ray-{os.getuid()}"
    folder.mkdir(mode=0o755)
    with (
        pytest.raises(ConfigError, match="not a folder that only you can enter"),
        connected(cpus=1, object_store=1),
    ):
        pass
    folder.rmdir()
    folder.symlink_to(short_folder)
    with (
        pytest.raises(ConfigError, match="not a folder that only you can enter"),
        connected(cpus=1, object_store=1),
    ):
        pass


def test_a_ray_that_others_would_reach_is_not_started() -> None:
    """Ray was imported before the setting that keeps it on the loopback address."""
    code = (
        "import ray\n"
        "from ifas.compute.connection import connected\n"
        "print(ray.util.get_node_ip_address(), flush=True)\n"
        "with connected(cpus=1, object_store=80 * 2**20):\n"
        "    print('started')\n"
    )
    env = {name: value for name, value in os.environ.items() if name != "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    address, *started = done.stdout.split()
    if is_loopback(address):
        pytest.skip("this machine has no other address")
    assert not started
    assert f"could be reached by other machines, at {address}" in done.stderr
