"""Starts a Bento on this machine and asks it, over plain HTTP."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from ifas.core.errors import FACE_REASONS, FaceRefused, ImageRefused, LaunchError
from ifas.core.urls import check_http
from ifas.serving.pages import VERIFY
from ifas.serving.request_limits import frame
from ifas.serving.stage import bentoml_environment

HOST = "127.0.0.1"
LOG_LINES = 20
#: A service answers 429 when it is busy and 503 when it starts or ends: try again.
BUSY = (429, 503)

# Without the proxy that the environment may name: images must not leave this machine.
_open = build_opener(ProxyHandler({})).open


@contextmanager
def serve(bento_dir: Path, *, port: int = 0, timeout: float = 120, log: Path | None = None) -> Iterator[str]:
    """Serves a Bento in a process group of its own; yields its URL once it is ready, stops it at the end.

    Args:
        bento_dir: a Bento, or the folder that `build_bento` made.
        port: 0 picks a free one.
        timeout: seconds until it must be ready.
        log: file for the server's output; a temporary one by default.

    Raises:
        LaunchError: not a Bento, the port is taken, or the server ended or was not ready in time. The error carries
            the end of its log.
    """
    bento = _bento_in(bento_dir)
    port = port or _free_port()
    _check_free(port)
    with tempfile.TemporaryDirectory(prefix="ifas-serve-") as scratch:
        log = log or Path(scratch) / "serve.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "bentoml", "serve", str(bento), "--host", HOST, "--port", str(port)]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                # The Bento's own copy of ifas is what serves, not the one beside the caller.
                cwd=bento / "src",
                env=bentoml_environment(Path(scratch)),
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        url = f"http://{HOST}:{port}"
        try:
            with _exit_on_sigterm():
                _wait_ready(process, url, timeout, log)
                yield url
        finally:
            _stop(process)
            for compiled in (bento / "src").rglob("__pycache__"):
                shutil.rmtree(compiled, ignore_errors=True)


def ask(url: str, image: Path | bytes, *, explain: bool = True, timeout: float = 90) -> dict[str, Any]:
    """The answer of a served Bento about one image.

    Args:
        url: where it is served, without a path.
        image: encoded image, or the file that holds it.
        timeout: seconds for the answer. A busy service is asked again after the time that it names, within this limit.

    Raises:
        ConfigError: `url` is no address of a web service.
        ImageRefused: the service refuses the image; the error carries its message. FaceRefused if there is no face that
            can be judged.
        LaunchError: the service can't be reached, or fails.
    """
    check_http(url, "the address of a served Bento")
    body, kind = frame(image if isinstance(image, bytes) else _read(image), explain)
    request = Request(f"{url.rstrip('/')}{VERIFY}", data=body, headers={"Content-Type": kind})  # noqa: S310
    deadline = time.monotonic() + timeout
    while True:
        try:
            with _open(request, timeout=timeout) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except HTTPError as error:
            with error:
                said = error.read(10_000).decode(errors="replace")
            # With a random part: clients that were refused together must not come back together.
            pause = _retry_after(error) + random.uniform(0.1, 1.0)  # noqa: S311 - not for secrets
            if error.code in BUSY and time.monotonic() + pause < deadline:
                time.sleep(pause)
                continue
            raise _refusal(url, error.code, said) from error
        except (URLError, HTTPException, OSError, ValueError) as error:
            raise LaunchError(f"no answer from {url}: {error}", "check that the Bento is served there") from error


def _retry_after(error: HTTPError) -> int:
    """Seconds that the service asks to wait; 0 where it does not say, or names a date."""
    said = error.headers.get("Retry-After", "").strip()
    return int(said) if said.isascii() and said.isdigit() and len(said) < 10 else 0


def _read(image: Path) -> bytes:
    try:
        return image.read_bytes()
    except OSError as error:
        raise ImageRefused(f"{image} can't be read: {error.strerror}", "name an existing image") from error


def _refusal(url: str, status: int, said: str) -> Exception:
    try:
        body = json.loads(said)
        what, fix, reason = str(body["error"]), str(body.get("fix", "")), body.get("reason")
    except (ValueError, TypeError, KeyError):
        what, fix, reason = said.strip() or "no reason given", "", None
    if status in (400, 413, 415):
        told = f"the service refused the image ({status}): {what}"
        return FaceRefused(reason, told, fix) if reason in FACE_REASONS else ImageRefused(told, fix)
    return LaunchError(f"{url} answered {status}: {what}", fix or "see the server's log")


def _bento_in(folder: Path) -> Path:
    for candidate in (folder, folder / "bento"):
        if (candidate / "bento.yaml").is_file():
            return candidate.resolve()
    raise LaunchError(f"{folder} holds no Bento", "build one with `ifas run` or `ifas package CANDIDATE --out FOLDER`")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise LaunchError(f"port {port} is taken ({error.strerror})", "choose another, or --port 0") from error


def _wait_ready(process: subprocess.Popen[bytes], url: str, timeout: float, log: Path) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise LaunchError(f"the Bento's server ended with code {process.returncode}:\n{_tail(log)}", f"see {log}")
        if _failed_to_start(log):
            # BentoML restarts a failing worker for ever.
            raise LaunchError(f"the Bento's service can't start:\n{_tail(log)}", "package the candidate again")
        try:
            with _open(f"{url}/readyz", timeout=2):
                return
        except (URLError, HTTPException, OSError):
            time.sleep(0.1)
    raise LaunchError(f"the Bento was not ready within {timeout:.0f} s:\n{_tail(log)}", f"see {log}")


def _failed_to_start(log: Path) -> bool:
    text = log.read_text(encoding="utf-8", errors="replace")
    return "Application startup failed" in text or "Failed to import module" in text


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:])


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Turns SIGTERM into an exception, so that the server, which has its own session, is stopped with this process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and its workers: by SIGTERM, and by SIGKILL after ten seconds."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
    # Workers outlive a supervisor that was killed, so the whole process group gets the signal.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=10)
