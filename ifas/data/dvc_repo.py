"""The door to git and DVC: both run as commands of their own process.

DVC in a process of its own leaves no loggers, event loops or file system caches behind in a process that will fork
workers, and its state goes with it: nothing it remembers about a remote outlives the call.
"""

from __future__ import annotations

import configparser
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from ifas.core.errors import CorruptShardError, IfasError, MachineError, RegistryError
from ifas.core.urls import clean

CONFIG = ".dvc/config"
#: Options of .dvc/config that ifas sets: no telemetry; links instead of a second copy beside the cache.
SETTINGS = {
    "core": {"analytics": "false", "check_update": "false"},
    "cache": {"type": "reflink,hardlink,symlink,copy"},
}

#: What the child process runs: DVC's commands, one after the other.
_EACH = """
import json, sys
from dvc.cli import main
for command in json.loads(sys.argv[1]):
    if code := main(command):
        sys.exit(code)
"""

_AWAY = "check that the remote runs and can be reached from here, then run the same command again"

#: What DVC says -> what the user can do about it.
_FIXES: tuple[tuple[str, str], ...] = (
    (r"Unable to locate credentials|NoCredentials", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    (
        r"Forbidden|\b403\b|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken",
        "the remote refuses these credentials: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the rights on it",
    ),
    (r"NoSuchBucket|bucket does not exist", "create the bucket, or correct the remote's URL"),
    (
        r"connect|timed? ?out|resolve|Name or service not known|unreachable|ServiceUnavailable|\b50[0-9]\b",
        _AWAY,
    ),
    (
        r"No storage files available|No such file|missing|not found|does not exist",
        "the remote does not hold the data: restore it, or publish the dataset again from a machine that has it",
    ),
    (r"Unable to acquire lock|is busy", "another DVC process is at work there: wait for it, then run again"),
)


class DvcFailed(Exception):
    """A DVC command that did not succeed; the text is DVC's own last error."""


def git(repo: Path, *args: str) -> str:
    """Output of a git command in `repo`. Raises RegistryError with git's own message."""
    done = _run(["git", "-C", str(repo), *args], environment())
    if done.returncode:
        said = clean(done.stderr.strip() or done.stdout.strip())
        if re.search(r"cannot change to|not a git repository|object name HEAD|argument 'HEAD'", said):
            raise RegistryError(
                f"{repo} is not a dataset registry: {said}", "make one with `ifas data init`, or correct the path"
            )
        raise RegistryError(f"git {args[0]} failed in {repo}: {said}", f"`git -C {repo} status` says more")
    return done.stdout.strip()


def git_ok(repo: Path, *args: str) -> bool:
    """Whether a git command in `repo` succeeds."""
    return _run(["git", "-C", str(repo), *args], environment()).returncode == 0


def clone(source: str, into: Path) -> None:
    """Clones a registry's git repository, all branches and tags. Raises RegistryError."""
    done = _run(["git", "clone", "-q", "--no-checkout", "--", source, str(into)], environment())
    if done.returncode:
        raise RegistryError(
            f"registry {clean(source)} can't be cloned: {clean(done.stderr.strip())}",
            "check its path or URL; `ifas data init` makes a new registry",
        )


def dvc(repo: Path, *commands: Sequence[str]) -> None:
    """Runs DVC commands in `repo` by one process, whose start costs more than most commands; ends at the first failure.

    Raises:
        DvcFailed: with DVC's own last error.
    """
    # A fresh state folder: an older one may claim that a remote holds what has been lost since.
    with tempfile.TemporaryDirectory(prefix="ifas-dvc-") as state:
        env = {**environment(), "DVC_SITE_CACHE_DIR": state}
        done = _run([sys.executable, "-c", _EACH, json.dumps(commands)], env, repo)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        text = lines[-1].removeprefix("ERROR: ").removeprefix("unexpected error - ") if lines else done.stderr.strip()
        raise DvcFailed(clean(text))


def explain(failure: DvcFailed, doing: str, url: str) -> IfasError:
    """The error a user sees when DVC failed: what it was doing, with which remote, and what to do."""
    text = str(failure)
    what = f"{doing} failed, remote {clean(url)}: {text}"
    # Before the others, which may match a path in the message.
    if re.search(r"No space left|Disk quota exceeded", text):
        return MachineError(what, "free disk space, then run the same command again")
    if "corrupt" in text:
        return CorruptShardError(what, "restore that object in the remote from a backup")
    fix = next((fix for pattern, fix in _FIXES if re.search(pattern, text, re.IGNORECASE)), "")
    found = RegistryError(what, fix or "read the message of DVC above; `dvc -v` in the registry says more")
    found.repeat = fix == _AWAY
    return found


def environment() -> dict[str, str]:
    """Environment of git and DVC: the user's, no telemetry, no prompts, and not the repository of a running hook."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k in _GIT_KEPT}
    login = _LOGIN if os.environ.get(PASSWORD_ENV) else {}
    return {**kept, **login, "LC_ALL": "C.UTF-8", "DVC_NO_ANALYTICS": "1", "GIT_TERMINAL_PROMPT": "0"}


USERNAME_ENV, PASSWORD_ENV = "IFAS_GIT_USERNAME", "IFAS_GIT_PASSWORD"
#: git asks this helper for a password, in a pod whose Secret holds it. The command names variables, not their values.
_LOGIN = {
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "credential.helper",
    "GIT_CONFIG_VALUE_0": f'!f() {{ test "$1" = get && printf "username=%s\\npassword=%s\\n" '
    f'"${USERNAME_ENV}" "${PASSWORD_ENV}"; }}; f',
}


_GIT_KEPT = (
    *("GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_SSL_NO_VERIFY", "GIT_ASKPASS"),
    *(f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL", "DATE")),
)


def _run(command: list[str], env: dict[str, str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise RegistryError(f"{command[0]} can't be started: {error}", "install git: apt-get install -y git") from error


def held(folder: Path, pointer: Path) -> bool:
    """Whether a remote folder has every object of the directory that a `.dvc` file points to."""
    try:
        listing = _listing(folder, pointer)
        names = [entry["md5"] for entry in json.loads(listing.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return all(_object(folder, name).is_file() for name in names)


def forget(folder: Path, pointer: Path) -> None:
    """Drops the list of a directory's files from a remote folder: where DVC sees it, it does not push the files."""
    _listing(folder, pointer).unlink(missing_ok=True)


def _listing(folder: Path, pointer: Path) -> Path:
    import yaml

    return _object(folder, yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"][0]["md5"])


def _object(folder: Path, md5: str) -> Path:
    return folder / "files" / "md5" / md5[:2] / md5[2:]


class DvcConfig:
    """A `.dvc/config`: which remotes there are. Relative folders become absolute ones, from `base`.

    `local` is the text of `.dvc/config.local`, where DVC keeps what does not belong in git; it comes on top.
    """

    def __init__(self, text: str, base: Path, local: str = "") -> None:
        self._parser = configparser.ConfigParser(interpolation=None)
        try:
            self._parser.read_string(text)
            self._parser.read_string(local)
        except configparser.Error as error:
            raise RegistryError(f"{base / 'config'} can't be read: {error}", "correct it, or restore it by git") from (
                error
            )
        for section in self._remotes():
            url = self._parser[section].get("url", "")
            if url and not is_url(url):
                self._parser[section]["url"] = os.path.normpath(base / url)

    def _remotes(self) -> Iterable[str]:
        return [s for s in self._parser.sections() if s.startswith("'remote ")]

    @property
    def remotes(self) -> dict[str, str]:
        """Remote name -> URL or folder."""
        return {s.split('"')[1]: self._parser[s].get("url", "") for s in self._remotes()}

    def remote(self, name: str = "") -> tuple[str, str]:
        """Name and URL of a remote, the default one when `name` is empty. Raises RegistryError."""
        chosen = name or self._parser.get("core", "remote", fallback="")
        if chosen not in self.remotes:
            what = f"registry has no DVC remote {name!r}" if name else "registry has no default DVC remote"
            raise RegistryError(
                what, f"its remotes are: {', '.join(self.remotes) or 'none'}; add one with `dvc remote`"
            )
        return chosen, self.remotes[chosen]

    def set_remote(self, name: str, url: str, endpoint: str | None) -> None:
        """Makes `name` the default remote."""
        self.set("core", "remote", name)
        section = f"'remote \"{name}\"'"
        self.set(section, "url", url)
        if endpoint:
            self.set(section, "endpointurl", endpoint)
        elif self._parser.has_option(section, "endpointurl"):
            self._parser.remove_option(section, "endpointurl")

    def set(self, section: str, key: str, value: str) -> None:
        """Sets one option."""
        if not self._parser.has_section(section):
            self._parser.add_section(section)
        self._parser[section][key] = value

    def __str__(self) -> str:
        text = io.StringIO()
        self._parser.write(text)
        return text.getvalue().rstrip() + "\n"


def is_url(place: str) -> bool:
    """Whether a place is a URL or an scp-like git address rather than a folder."""
    return "://" in place or bool(re.match(r"[\w.-]+@[\w.-]+:", place))
