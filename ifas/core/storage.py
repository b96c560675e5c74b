"""Storage URIs: a step reads and writes local paths; this brings them from and to an object store.

`s3://bucket/key` goes through s3fs (endpoint and credentials from AWS_* environment variables); anything else is a
local path and is used in place.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ifas.core.errors import DataError
from ifas.core.files import replacing


def is_remote(uri: str) -> bool:
    """Whether `uri` names an object store."""
    return uri.startswith("s3://")


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
    fs = _s3()
    try:
        fs.invalidate_cache()
        if not fs.exists(uri):
            raise DataError(f"nothing at {uri}", "check bucket and key, or run the step that makes it")
        with replacing(into) as beside:
            fs.get(uri, str(beside), recursive=bool(fs.isdir(uri)))
    except (OSError, _client_error()) as error:
        raise _unreachable(uri, error) from error
    return into


def store(path: Path, uri: str) -> None:
    """Uploads a file or a folder to `uri` (`s3://...`).

    Raises:
        DataError: the store can't be reached or refuses.
    """
    fs = _s3()
    try:
        if path.is_file():
            fs.put_file(str(path), uri)
        else:
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                fs.put_file(str(file), f"{uri.rstrip('/')}/{file.relative_to(path).as_posix()}")
    except (OSError, _client_error()) as error:
        raise _unreachable(uri, error) from error


def _s3() -> Any:
    import s3fs

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return s3fs.S3FileSystem(endpoint_url=endpoint, use_listings_cache=False)


def _client_error() -> type[Exception]:
    from botocore.exceptions import BotoCoreError

    return BotoCoreError  # type: ignore[no-any-return]


def _unreachable(uri: str, error: Exception) -> DataError:
    return DataError(
        f"object store behind {uri} can't be used: {type(error).__name__}: {error}",
        "check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that the store runs",
    )
