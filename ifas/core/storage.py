"""Storage URIs. A step reads and writes local paths; this module copies them from and to another file system.

`s3://bucket/key` is opened by s3fs (endpoint and credentials from AWS_* environment variables), any other `scheme://`
by the file system that fsspec has for it. Anything else is a local path and is used in place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ifas.core.errors import ConfigError, DataError, StoreAway
from ifas.core.files import replacing


def is_remote(uri: str) -> bool:
    """Whether `uri` names a file system other than the local one."""
    return "://" in uri


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
    with _reached(uri) as fs:
        fs.invalidate_cache()
        if not fs.exists(uri):
            raise DataError(f"nothing at {uri}", "check bucket and key, or run the step that makes it")
        with replacing(into) as beside:
            if fs.isdir(uri):
                # One by one: s3fs creates and lists folders differently from local and memory file systems.
                root = fs._strip_protocol(uri).rstrip("/")
                for file in fs.find(uri):
                    target = beside / file.removeprefix(root).lstrip("/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    fs.get_file(file, str(target))
            else:
                fs.get_file(uri, str(beside))
    return into


def store(path: Path, uri: str) -> None:
    """Uploads a file or a folder to `uri`.

    Raises:
        DataError: the store can't be reached or refuses.
    """
    with _reached(uri) as fs:
        if path.is_file():
            _put(fs, path, uri)
        else:
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                _put(fs, file, f"{uri.rstrip('/')}/{file.relative_to(path).as_posix()}")


def listing(uri: str) -> list[str]:
    """Names of what lies directly below a prefix, sorted; none where nothing is there.

    Raises:
        DataError: the store can't be reached.
    """
    with _reached(uri) as fs:
        fs.invalidate_cache()
        try:
            return sorted(entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(uri, detail=False))
        except FileNotFoundError:
            return []


def sizes(uri: str) -> dict[str, int]:
    """Objects at a URI and below it -> bytes; the object at the URI itself is called "".

    Raises:
        DataError: the store can't be reached.
    """
    with _reached(uri) as fs:
        fs.invalidate_cache()
        if not fs.exists(uri):
            return {}
        root = fs._strip_protocol(uri).rstrip("/")
        return {path.removeprefix(root).lstrip("/"): info["size"] for path, info in fs.find(uri, detail=True).items()}


def exists(uri: str) -> bool:
    """Whether something is at `uri`. Raises DataError where the store can't be reached."""
    with _reached(uri) as fs:
        fs.invalidate_cache()
        return bool(fs.exists(uri))


def delete(uri: str) -> None:
    """Removes an object, or all below a prefix; nothing happens where there is none.

    Raises:
        DataError: the store can't be reached or refuses.
    """
    with _reached(uri) as fs:
        fs.invalidate_cache()
        if fs.exists(uri):
            fs.rm(uri, recursive=True)


def _put(fs: Any, file: Path, uri: str) -> None:
    if not uri.startswith("s3://"):  # on S3, this would create a missing bucket
        fs.makedirs(fs._parent(uri), exist_ok=True)
    fs.put_file(str(file), uri)


@contextmanager
def _reached(uri: str) -> Iterator[Any]:
    """The file system of `uri`; its errors are raised as DataError."""
    from botocore.exceptions import BotoCoreError

    try:
        yield filesystem(uri)
    except (OSError, BotoCoreError) as error:
        raise StoreAway(
            f"store behind {uri} can't be used: {type(error).__name__}: {error}",
            "check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that the store runs"
            if uri.startswith("s3://")
            else "check that it is there and that you may write to it",
        ) from error


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
