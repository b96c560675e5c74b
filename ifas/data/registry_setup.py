"""Makes a dataset registry, or brings one that is there up to what is asked."""

from __future__ import annotations

import re
from pathlib import Path

from ifas.core.errors import RegistryError
from ifas.core.files import replacing
from ifas.core.urls import clean
from ifas.data.dvc_repo import CONFIG, SETTINGS, DvcConfig, DvcFailed, dvc, explain, git, git_ok, is_url

REMOTE = "storage"


def set_up(path: Path, remote: str | None, endpoint: str | None) -> None:
    """git and DVC repository at `path` with a default remote; safe to run again, also after it was killed half-way.

    Raises:
        RegistryError: `path` holds something else, or the remote carries a password.
    """
    for url in (remote or "", endpoint or ""):
        if re.search(r"://[^/\s]*@", url):
            raise RegistryError(
                f"remote {clean(url)} carries credentials, and the registry's configuration is in git",
                "leave them out; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
    if endpoint and not (remote or "").startswith("s3://"):
        raise RegistryError("an endpoint is for an S3 remote", "pass --remote s3://bucket/prefix with it")
    if not (path / ".git").exists():
        if path.exists() and not (path.is_dir() and all(p.name == ".dvc" for p in path.iterdir())):
            raise RegistryError(f"{path} exists and is not a dataset registry", "name a new folder")
        if remote and not is_url(remote):
            # Before anything is made: it may be impossible.
            Path(remote).mkdir(parents=True, exist_ok=True)
        path.mkdir(parents=True, exist_ok=True)
        git(path, "init", "-q", "-b", "main")
    if not git_ok(path, "config", "user.email"):
        git(path, "config", "user.name", "ifas")
        git(path, "config", "user.email", "ifas@localhost")
    if not (path / CONFIG).is_file():
        try:
            dvc(path, ("init", "-q", "-f"))
        except DvcFailed as error:
            raise explain(error, f"making registry {path}", "none") from error
    _configure(path, remote, endpoint)
    paths = [p for p in (".dvc/config", ".dvc/.gitignore", ".dvcignore") if (path / p).exists()]
    git(path, "add", "--", *paths)
    if not git_ok(path, "diff", "--cached", "--quiet", "--", *paths):
        git(path, "commit", "-q", "-m", "Configure the registry", "--only", "--", *paths)


def _configure(path: Path, remote: str | None, endpoint: str | None) -> None:
    file = path / CONFIG
    text = file.read_text(encoding="utf-8")
    config = DvcConfig(text, file.parent.resolve())
    for section, options in SETTINGS.items():
        for key, value in options.items():
            config.set(section, key, value)
    beside = path.resolve().with_name(f"{path.resolve().name}-remote")
    if remote:
        if not is_url(remote):
            remote = str(Path(remote).resolve())
            Path(remote).mkdir(parents=True, exist_ok=True)
        config.set_remote(REMOTE, remote, endpoint)
    elif not config.remotes:
        beside.mkdir(parents=True, exist_ok=True)
        config.set_remote(REMOTE, str(beside), None)
    else:
        # Registry and folder were moved together: the remote is beside the registry again.
        name, url = config.remote()
        if not is_url(url) and not Path(url).is_dir() and Path(url).name == beside.name and beside.is_dir():
            config.set_remote(name, str(beside), None)
    if str(config) != text:
        with replacing(file) as new:
            new.write_text(str(config), encoding="utf-8")
