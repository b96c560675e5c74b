"""Storage URIs against a real S3 server."""

import pytest

from ifas.core import storage
from ifas.core.errors import DataError
from ifas.core.files import sha256_tree


def test_folder_and_file_round_trip(s3, tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_bytes(b"1" * 1000)
    (folder / "sub" / "b").write_bytes(b"2")
    storage.store(folder, f"s3://{s3.bucket}/x/folder")
    storage.store(folder / "a", f"s3://{s3.bucket}/x/file")
    assert sha256_tree(storage.fetch(f"s3://{s3.bucket}/x/folder", tmp_path / "back")) == sha256_tree(folder)
    assert storage.fetch(f"s3://{s3.bucket}/x/file", tmp_path / "file").read_bytes() == b"1" * 1000


def test_nothing_there_is_said(s3, tmp_path):
    with pytest.raises(DataError, match="nothing at s3://"):
        storage.fetch(f"s3://{s3.bucket}/nowhere", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_store_that_is_down_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "never-shown")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(DataError, match="can't be used") as raised:
        storage.fetch("s3://b/x", tmp_path / "x")
    assert "never-shown" not in str(raised.value)


def test_local_path_is_used_in_place(tmp_path):
    assert storage.fetch(str(tmp_path), tmp_path / "x") == tmp_path
    with pytest.raises(DataError, match="does not exist"):
        storage.fetch(str(tmp_path / "gone"), tmp_path / "x")
