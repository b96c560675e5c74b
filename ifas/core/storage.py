"""Storage URIs. A step reads and writes local paths; this module copies them from and to another file system.

`s3://bucket/key` is opened by s3fs (endpoint and credentials from AWS_* environment variables), any other `scheme://`
by the file system that fsspec has for it. Anything else is a local path and is used in place.

A pinned URI ends in `#sha256=HEX`, the hash of what it holds (`files.sha256_tree`): any machine can fetch and check it
by the URI alone.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ifas.core.errors import ConfigError, DataError, StoreAway
from ifas.core.files import locked, remove, replacing, sha256_json, sha256_tree
from ifas.core.home import home
from ifas.core.progress import Progress, emit

T = TypeVar("T")
PIN = "#sha256="
#: What a store that is busy or about to come back answers, as s3fs translates it.
_BUSY = (errno.EBUSY, errno.EIO, errno.EREMOTEIO, errno.ETIMEDOUT)
#: Seconds between two tries of a store that does not answer.
_PAUSE = 2.0
#: How long work that has begun waits for a store that went away.
PATIENCE_S = 600.0
_patience = 0.0


def is_remote(uri: str) -> bool:
    """Whether `uri` names a file system other than the local one."""
    return "://" in uri


def uri_of(place: str) -> str:
    """The URI of a local path, whatever characters it has; any other stays as it is."""
    return place if is_remote(place) else f"file://{Path(place).absolute()}"


def pinned(uri: str, sha256: str) -> str:
    """A URI with the hash of what it holds."""
    return f"{unpinned(uri)[0]}{PIN}{sha256}"


def unpinned(uri: str) -> tuple[str, str]:
    """A URI without its hash, and that hash, empty where it has none."""
    place, _, sha256 = uri.partition(PIN)
    return place, sha256


@contextmanager
def patient(seconds: float = PATIENCE_S) -> Iterator[None]:
    """Inside the block, all threads of this process wait that long for a store that does not answer.

    Without it an error comes at once: right for a command's first call, wrong for a training of hours.
    """
    global _patience
    before, _patience = _patience, seconds
    try:
        yield
    finally:
        _patience = before


def fetch(uri: str, into: Path) -> Path:
    """The local path of `uri`; an object or a prefix in a store is downloaded to `into` first.

    Raises:
        DataError: nothing is there, or the store can't be reached.
    """
    if not is_remote(uri):
        path = Path(uri)
        if not path.exists():
            raise DataError(f"input {uri} does not exist", "check the path, or run the step that makes it")
        return path
    objects = sizes(uri)
    if not objects:
        raise DataError(f"nothing at {uri}", "check bucket and key, or run the step that makes it")
    progress = Progress("fetch", sum(objects.values()), unit="bytes")
    with replacing(into) as beside:
        # One by one: s3fs creates and lists folders differently from local and memory file systems.
        for name, size in objects.items():
            target = beside / name if name else beside
            target.parent.mkdir(parents=True, exist_ok=True)
            one = f"{uri.rstrip('/')}/{name}" if name else uri
            _tried(one, partial(_get, one, target))
            progress.advance(size)
    return into


def here(uri: str) -> Path:
    """The local path of `uri`; what lies in a store is fetched, once for all processes of this machine.

    Copies are named by their content, below `$IFAS_HOME/fetched`. Of a pinned URI nothing is asked where its copy is
    here.

    Raises:
        DataError: nothing is there, it is not what the pin says, or the store can't be reached.
    """
    place, sha256 = unpinned(uri)
    if not is_remote(place):
        path = fetch(place, Path())
        if sha256 and (found := sha256_tree(path)) != sha256:
            raise _other(place, sha256, found)
        return path
    folder = home().absolute() / "fetched"
    if sha256 and (folder / sha256).exists():
        return folder / sha256
    name = sha256 or sha256_json(place)
    with locked(folder / f"{name}.lock"):
        if sha256 and (folder / sha256).exists():  # another process has fetched it meanwhile
            return folder / sha256
        began = time.monotonic()
        fresh = fetch(place, folder / f"{name}.new")
        found = sha256_tree(fresh)
        if sha256 and found != sha256:
            remove(fresh)
            raise _other(place, sha256, found)
        target = folder / found
        if target.exists():
            remove(fresh)
        else:
            fresh.rename(target)
    files = [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]
    size = sum(file.stat().st_size for file in files) / 2**20
    emit(
        "note",
        "fetch",
        text=f"{place}: {len(files)} file(s), {size:.1f} MiB, {time.monotonic() - began:.1f} s, verified",
    )
    return target


def _other(place: str, sha256: str, found: str) -> DataError:
    return DataError(
        f"{place} is not what it should be: expected SHA-256 {sha256}, found {found}",
        "upload it again, or run the step that makes it",
    )


def pin(uri: str) -> str:
    """A pinned URI of what `uri` names now, which is fetched. A local path and a pinned URI stay as they are."""
    if not is_remote(uri) or PIN in uri:
        return uri
    return pinned(uri, here(uri).name)


def store(path: Path, uri: str) -> None:
    """Uploads a file or a folder to `uri`.

    Raises:
        DataError: the store can't be reached or refuses.
    """
    if path.is_file():
        _tried(uri, partial(_put, path, uri))
        return
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        one = f"{uri.rstrip('/')}/{file.relative_to(path).as_posix()}"
        _tried(one, partial(_put, file, one))


def listing(uri: str) -> list[str]:
    """Names of what lies directly below a prefix, sorted; none where nothing is there.

    Raises:
        DataError: the store can't be reached.
    """

    def names(fs: Any) -> list[str]:
        try:
            return sorted(entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(uri, detail=False))
        except FileNotFoundError:
            return []

    return _tried(uri, names)


def sizes(uri: str) -> dict[str, int]:
    """Objects at a URI and below it -> bytes; the object at the URI itself is called "".

    Raises:
        DataError: the store can't be reached.
    """

    def found(fs: Any) -> dict[str, int]:
        if not fs.exists(uri):
            return {}
        root = fs._strip_protocol(uri).rstrip("/")
        # Some S3 servers keep, and list, the folders of what was deleted.
        files = {path: info for path, info in fs.find(uri, detail=True).items() if info["type"] == "file"}
        return {path.removeprefix(root).lstrip("/"): info["size"] for path, info in files.items()}

    return _tried(uri, found)


def exists(uri: str) -> bool:
    """Whether something is at `uri`. Raises DataError where the store can't be reached."""
    return bool(_tried(uri, lambda fs: fs.exists(uri)))


def delete(uri: str) -> None:
    """Removes an object, or all below a prefix; nothing happens where there is none.

    Raises:
        DataError: the store can't be reached or refuses.
    """
    _tried(uri, lambda fs: fs.rm(uri, recursive=True) if fs.exists(uri) else None)


def _get(uri: str, target: Path, fs: Any) -> None:
    fs.get_file(uri, str(target))


def _put(file: Path, uri: str, fs: Any) -> None:
    if not uri.startswith("s3://"):  # on S3, this would create a missing bucket
        fs.makedirs(fs._parent(uri), exist_ok=True)
    fs.put_file(str(file), uri)


def _tried(uri: str, action: Callable[[Any], T]) -> T:
    """What `action` gives on the file system of `uri`.

    Args:
        action: may be done twice: see `patient`.

    Raises:
        StoreAway: the store does not answer.
        DataError: it refuses.
    """
    from botocore.exceptions import BotoCoreError

    began, told = time.monotonic(), False
    while True:
        try:
            fs = filesystem(uri)
            fs.invalidate_cache()
            result = action(fs)
        except (OSError, BotoCoreError) as error:
            waited = time.monotonic() - began
            if _away(error) and waited < _patience:
                if not told:
                    emit("note", "store", text=f"{uri} does not answer ({type(error).__name__}): waiting for it")
                    told = True
                time.sleep(min(_PAUSE, _patience - waited))
                continue
            raise (StoreAway if _away(error) else DataError)(
                f"store behind {uri} can't be used: {type(error).__name__}: {error}",
                "check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that the store runs"
                if uri.startswith("s3://")
                else "check that it is there and that you may write to it",
            ) from error
        if told:
            emit("note", "store", text=f"the store is back after {time.monotonic() - began:.0f} s")
        return result


def _away(error: Exception) -> bool:
    """Whether a store may answer if it is asked again."""
    from botocore.exceptions import ConnectionError as NoConnection
    from botocore.exceptions import HTTPClientError

    if isinstance(error, NoConnection | HTTPClientError | ConnectionError | TimeoutError):
        return True
    if not isinstance(error, OSError) or error.errno not in _BUSY:
        return False
    # s3fs has EIO for every code that it does not know, also where waiting is no use. 507: the store is full.
    status = getattr(error.__cause__, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    return error.errno != errno.EIO or (status >= 500 and status != 507 and "StorageFull" not in str(error.__cause__))


def check_scheme(uri: str) -> None:
    """Raises ConfigError unless the scheme of `uri` is one that can be used here; nothing is reached."""
    from fsspec.core import split_protocol
    from fsspec.registry import get_filesystem_class

    try:
        get_filesystem_class(split_protocol(uri)[0] or "file")
    except (ValueError, ImportError) as error:
        raise ConfigError(f"{uri}: {error}", _SCHEMES) from error


def filesystem(uri: str) -> Any:
    """The fsspec file system of `uri`. Raises ConfigError where its scheme is unknown."""
    if uri.startswith("s3://"):
        import s3fs

        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return s3fs.S3FileSystem(endpoint_url=endpoint, use_listings_cache=False)
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(uri)[0]
    except (ValueError, ImportError) as error:
        raise ConfigError(f"{uri}: {error}", _SCHEMES) from error


_SCHEMES = "use s3://, file:// or another scheme that fsspec has installed"
