"""Files in a folder and in an S3 bucket: the same contract."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from inn_automl.core.errors import CorruptFileError, StorageError
from inn_automl.core.object_store import ObjectStore


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ObjectStore:
    if request.param == "folder":
        return ObjectStore(f"file://{tmp_path}/store")
    endpoint = request.getfixturevalue("s3_endpoint")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="bucket")
    return ObjectStore(f"s3://bucket/{tmp_path.name}")


def test_what_is_written_is_read_back(store: ObjectStore) -> None:
    written = store.write("a/b.bin", b"0123456789")
    assert (written.sha256, written.size_bytes) == (hashlib.sha256(b"0123456789").hexdigest(), 10)
    assert store.exists("a/b.bin")
    assert store.size_bytes("a/b.bin") == 10
    assert store.read("a/b.bin") == b"0123456789"
    assert b"".join(store.chunks("a/b.bin", start=2, end=5)) == b"234"
    assert b"".join(store.chunks("a/b.bin", start=8)) == b"89"
    store.write("a/b.bin", b"new")
    assert store.read("a/b.bin") == b"new"


def test_a_write_that_fails_leaves_nothing_or_what_was_there(store: ObjectStore) -> None:
    store.write("kept", b"old")
    for path in ("kept", "fresh"):
        with pytest.raises(RuntimeError, match="killed"):
            _write_half(store, path)
    assert store.read("kept") == b"old"
    assert set(store.files()) == {"kept"}


def _write_half(store: ObjectStore, path: str) -> None:
    with store.writing(path) as writer:
        writer.write(b"half")
        raise RuntimeError("killed")


def test_put_get_and_verification(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)
    stored = store.put("folder/file", source)
    store.get("folder/file", tmp_path / "copy", sha256=stored.sha256)
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    with pytest.raises(CorruptFileError):
        store.get("folder/file", tmp_path / "bad", sha256="0" * 64)
    assert not (tmp_path / "bad").exists()


def test_listing_children_and_deleting(store: ObjectStore) -> None:
    for path in ("a/1", "a/b/2", "c/3"):
        store.write(path, path.encode())
    assert store.files() == {"a/1": 3, "a/b/2": 5, "c/3": 3}
    assert store.files("a") == {"a/1": 3, "a/b/2": 5}
    assert store.child("a").files() == {"1": 3, "b/2": 5}
    store.delete("a")
    store.delete("a")
    assert store.files() == {"c/3": 3}
    assert store.files("none") == {}


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up", "a/../../up"])
def test_paths_stay_inside(store: ObjectStore, path: str) -> None:
    with pytest.raises(StorageError):
        store.write(path, b"")


def test_what_is_missing_is_a_storage_error(store: ObjectStore) -> None:
    assert not store.exists("none")
    for ask in (store.read, store.size_bytes):
        with pytest.raises(StorageError):
            ask("none")


def test_unknown_schemes_are_refused() -> None:
    with pytest.raises(StorageError, match="give file:"):
        ObjectStore("nothing://here")
