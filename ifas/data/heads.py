"""Heads of a ledger, kept in the registry's git repository: a branch of their own, which no dataset's commit touches.

git holds each head as a small file, and names it in the commit's message: so a later commit can take nothing away
without rewriting the branch, which a server can forbid. A commit is made by `git fast-import`: it needs no work tree,
and git refuses it where another process was quicker; then it is made again on top of that one's. Where the repository
has a remote, heads are fetched from there and pushed to it, never by force.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ifas.core.errors import RegistryError
from ifas.core.home import home
from ifas.core.progress import emit
from ifas.core.urls import clean
from ifas.data.dvc_repo import environment, is_url

#: Branches of ledgers; who owns a git server forbids to rewrite and to delete these.
BRANCHES = "ifas-ledger"
#: How long a git server may take to answer.
ANSWER_S = 10.0
#: How long what a git server has said is not asked again by this process, nor one that did not answer.
FRESH_S = 60.0
#: How often a commit is made again because another process was quicker.
TRIES = 40
#: What git says where another process has changed the branch first, here or at the remote.
QUICKER = re.compile(
    r"not updating|cannot lock ref|unable to create .*lock|reference already exists|fetch first|non-fast-forward|"
    r"incorrect old value",
    re.IGNORECASE,
)
#: Name of a head, as a witness gives it: a file of the branch, and a line of a commit's message.
HEAD = re.compile(r"^[a-z]+-\d{8,}-[0-9a-f]{64}\.json$", re.MULTILINE)
#: What to do where heads did not get to the remote.
PUSH = "the next decision tries again; `git push` in the registry, or its server's rights, say why"
#: (repository, branch) -> when its remote was asked last, and whether it answered.
_asked: dict[tuple[str, str], tuple[float, bool]] = {}


class HeadsBranch:
    """A branch with the heads of one ledger.

    Args:
        registry: a dataset registry's folder; or its git URL, of which a bare copy is kept in ifas's home.
        ledger: name of the ledger, the same wherever it is used from.
    """

    def __init__(self, registry: str, ledger: str) -> None:
        self._ledger = ledger
        name = f"{BRANCHES}/{hashlib.sha256(ledger.encode()).hexdigest()[:12]}"
        self._branch, self._fetched = f"refs/heads/{name}", f"refs/ifas/fetched/{name}"
        self._url = registry if is_url(registry) else ""
        self._repo = (
            home().absolute() / "heads" / f"{hashlib.sha256(registry.encode()).hexdigest()[:12]}.git"
            if self._url
            else Path(registry).absolute()
        )
        self._place = (str(self._repo), name)
        self.uri = f"branch {name} of registry {clean(registry)}"
        self.undo = (
            f"git -C {self._repo} branch -D {name}, and where it was pushed: git push REMOTE --delete {name}; "
            "who may do this to a shared repository is for its owner to say"
        )

    @classmethod
    def of(cls, registry: str, ledger: str) -> HeadsBranch | None:
        """The branch in a registry; None where no registry is there."""
        there = is_url(registry) or (Path(registry) / ".git").exists()
        return cls(registry, ledger) if there else None

    def names(self) -> Sequence[str]:
        """Names of the heads that are kept, here and, as far as it answers, at the remote.

        Raises:
            RegistryError: git can't read the repository here.
        """
        self._prepare()
        remote = self._remote()
        self._fetch(remote)
        return sorted({*self._named(self._branch), *(self._named(self._fetched) if remote else ())})

    def add(self, files: Mapping[str, str]) -> None:
        """Keeps heads: name -> text. One that is there stays as it is.

        Raises:
            RegistryError: git can't write the repository here, or the remote did not take them. They are kept here in
                the second case, and go with the next ones.
        """
        self._prepare()
        remote = self._remote()
        self._commit(files, remote)
        if not remote:
            return
        for _ in range(3):
            if not self._answers():
                break
            done = self._git("push", "-q", remote, f"{self._branch}:{self._branch}", seconds=ANSWER_S)
            if done.returncode == 0:
                self._git("update-ref", self._fetched, self._branch)
                return
            if not QUICKER.search(done.stderr):
                raise RegistryError(f"{self.uri}: its remote did not take the heads: {_said(done)}", PUSH)
            self._fetch(remote, again=True)
            self._commit({}, remote)
        raise RegistryError(f"{self.uri}: its remote does not answer, so the heads are kept here only", PUSH)

    def _commit(self, files: Mapping[str, str], remote: str) -> None:
        """A commit with these heads and those of the remote, if the branch lacks any."""
        for attempt in range(TRIES):
            here = self._named(self._branch)
            there = self._named(self._fetched) if remote else set()
            lacking = {name: text for name, text in files.items() if name not in here and name not in there}
            ahead = bool(there) and self._git("merge-base", "--is-ancestor", self._fetched, self._branch).returncode
            if not lacking and not ahead:
                return
            merged = self._files(self._fetched) if ahead else {}
            done = self._git("fast-import", "--quiet", text=self._stream(lacking, bool(here), merged, bool(ahead)))
            if done.returncode == 0:
                return
            if not QUICKER.search(done.stderr):
                break
            time.sleep(random.uniform(0, 0.02 * (attempt + 1)))  # noqa: S311 - no secret
        raise RegistryError(f"{self.uri}: git can't write it: {_said(done)}", "correct the rights on the repository")

    def _stream(self, lacking: Mapping[str, str], begun: bool, merged: Mapping[str, str], ahead: bool) -> str:
        """What `git fast-import` reads.

        Args:
            begun: whether there is the branch already.
            merged: name -> blob of the remote's branch, where that is ahead.
        """
        about = "\n".join([f"heads of ledger {self._ledger}", "", *lacking, ""])
        lines = [f"commit {self._branch}", f"committer ifas <ifas@localhost> {int(time.time())} +0000"]
        lines += [f"data {len(about.encode())}", about]
        if begun:
            lines.append(f"from {self._branch}^0")
        if ahead:
            lines.append(f"{'merge' if begun else 'from'} {self._fetched}^0")
        lines += [f"M 100644 {blob} {name}" for name, blob in merged.items()]
        for name, text in lacking.items():
            lines += [f"M 100644 inline {name}", f"data {len(text.encode())}", text]
        return "\n".join([*lines, ""])

    def _named(self, ref: str) -> set[str]:
        """The heads that a branch has ever got, by its commits' messages: who pushes can add, and remove none."""
        done = self._git("log", "--format=%B", ref, "--")
        if done.returncode and "bad revision" not in done.stderr:
            raise RegistryError(f"{self.uri}: git can't read it: {_said(done)}", "restore the repository")
        return set(HEAD.findall(done.stdout))

    def _files(self, ref: str) -> dict[str, str]:
        """Name -> blob of the heads that lie in a branch, for people to read."""
        rows = (line.split("\t") for line in self._git("ls-tree", ref).stdout.splitlines())
        return {name: about.split()[2] for about, name in rows if HEAD.fullmatch(name) and " blob " in about}

    def _prepare(self) -> None:
        if self._url and not (self._repo / "HEAD").exists():
            self._repo.parent.mkdir(parents=True, exist_ok=True)
            done = _run(["git", "init", "-q", "--bare", str(self._repo)])
            if done.returncode:
                raise RegistryError(f"{self._repo} can't be made: {_said(done)}", "correct the rights on its folder")

    def _remote(self) -> str:
        """URL or name of the remote; empty where there is none."""
        if self._url:
            return self._url
        names = self._git("remote").stdout.split()
        return "origin" if "origin" in names else names[0] if names else ""

    def _fetch(self, remote: str, *, again: bool = False) -> None:
        """Brings what the remote holds, if it was not asked a moment ago; a note says where it did not answer."""
        if not remote or (not again and time.monotonic() - _asked.get(self._place, (-FRESH_S, True))[0] < FRESH_S):
            return
        done = self._git(
            "fetch",
            "-q",
            "--no-tags",
            "--no-write-fetch-head",
            remote,
            f"+{self._branch}:{self._fetched}",
            seconds=ANSWER_S,
        )
        none_there = "couldn't find remote ref" in done.stderr
        _asked[self._place] = (time.monotonic(), done.returncode == 0 or none_there)
        if not self._answers():
            emit("note", "ledger", text=f"{self.uri}: its remote can't be asked, only what is here: {_said(done)}")

    def _answers(self) -> bool:
        return _asked.get(self._place, (0.0, True))[1]

    def _git(self, *args: str, text: str = "", seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        return _run(["git", "-C", str(self._repo), *args], text, seconds)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """git's own words, on one line."""
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("fast-import")]
    return clean(" ".join(lines)[:300]) or f"exit code {done.returncode}"


def _run(command: list[str], text: str = "", seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    """A git command that never asks anybody anything, and ends with all that it has started.

    Its session is its own: ssh finds no terminal to ask for a password, and a server that hangs is left in time.
    """
    try:
        process = subprocess.Popen(
            command,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
    except OSError as error:
        raise RegistryError(f"git can't be started: {error}", "install git: apt-get install -y git") from error
    try:
        out, err = process.communicate(text, timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {seconds:g} s")
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)
