"""The one place that connects this process to Ray.

A local Ray is one that this process starts on this machine. Its servers listen on the loopback address, so other
machines can't reach it. They ask for a token that this process makes (Ray's own token authentication), so other users
of this machine can't use it; only the page with the autoscaler's counters asks for none. `RAY_AUTH_TOKEN` sets another
token, and `RAY_AUTH_MODE=disabled` turns the check off. Sockets and logs lie in a folder that only this user can enter
(`RAY_TMPDIR`).
"""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ifas.core.environment import prepare
from ifas.core.errors import ConfigError, LaunchError

#: One for the whole life of this process: Ray keeps the first token that it sees in a process.
_TOKEN = secrets.token_hex(32)
#: A socket's path has at most 107 bytes (unix(7)), and this is what Ray puts below its folder.
LONGEST_FOLDER = 107 - len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")


def of_cluster() -> bool:
    """Whether this process belongs to a Ray cluster: `RAY_ADDRESS` says so, with which a cluster's jobs are started."""
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local")


@contextmanager
def connected(
    *,
    cpus: int,
    object_store: int,
    settings: Mapping[str, str] | None = None,
    worker_env: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Inside the block, this process is connected to Ray. Afterwards the environment is as it was.

    That is the cluster that this process belongs to. If there is none, it is a local Ray, which ends with this process
    at the latest.

    Args:
        cpus: CPUs of a local Ray: the number of tasks and actors, with one CPU each, that run at once.
        object_store: shared memory of a local Ray, in bytes.
        settings: Ray's settings for this process. Environment variables that the user has set win.
        worker_env: environment variables of tasks and actors.

    Raises:
        ConfigError: other machines or users could reach the local Ray.
        LaunchError: the cluster does not answer.
    """
    prepare()
    before = dict(os.environ)
    os.environ.update({**(settings or {}), **before})
    local = not of_cluster()
    options: dict[str, Any] = {"address": os.environ.get("RAY_ADDRESS")}
    if local:
        # "local": never one that another user has started here.
        options = {"address": "local", "num_cpus": cpus, "object_store_memory": object_store}
    import ray

    try:
        if local:
            os.environ.setdefault("RAY_AUTH_TOKEN", _TOKEN)
            os.environ.setdefault("RAY_TMPDIR", str(_own_folder()))
            _require_loopback(ray.util.get_node_ip_address())
        try:
            ray.init(
                **options,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": dict(worker_env)} if worker_env else None,
            )
        except ConnectionError as error:
            raise LaunchError(
                f"the Ray cluster at {options['address']} does not answer: {error}",
                "unset RAY_ADDRESS to work on this machine alone",
            ) from error
        yield
    finally:
        ray.shutdown()
        # Not cleared first: other threads would find no HOME and no IFAS_HOME.
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _own_folder() -> Path:
    """A folder that only this user may enter. Ray lets every user write below it and trusts every socket there."""
    folder = Path(tempfile.gettempdir(), f"ifas-ray-{os.getuid()}")
    if len(os.fsencode(folder)) > LONGEST_FOLDER:
        folder = Path("/tmp", folder.name)  # noqa: S108 - checked below
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(
            f"{folder} is not a folder that only you can enter: others could run code in a Ray with its files there",
            f"remove it, or `chmod 700 {folder}`, or name a folder of your own in RAY_TMPDIR",
        )
    return folder


def _require_loopback(address: str) -> None:
    """Ray reads this setting when it is imported, see `ifas.core.environment`."""
    if not ipaddress.ip_address(address).is_loopback:
        raise ConfigError(
            f"the local Ray could be reached by other machines, at {address}",
            "set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before Ray is imported: in the shell, or by "
            "ifas.core.environment.prepare()",
        )
